"""Scenes: the same every time, the acrobat inside, ground truth of the right kind, five control maps."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from miniature.architecture import CONTROL_TYPES, IMAGE_SIZE
from miniature.canvas import CLASS, CLASSES
from miniature.dataset import training_scene
from miniature.skeleton import HEAD
from miniature.world import Render, Scene, control_map, render, sample_scene

Truth = tuple[Scene, Render]


def test_a_scene_renders_the_same_twice() -> None:
    (one, _), (other, _) = training_scene(5), training_scene(5)
    assert one == other
    first, second = render(one), render(other)
    for name in ("picture", "depth", "normals", "classes"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


def test_another_seed_is_another_picture() -> None:
    one, other = (render(training_scene(index)[0]).picture for index in (5, 6))
    assert not np.array_equal(one, other)


def test_the_acrobat_is_inside_the_picture() -> None:
    rng = np.random.default_rng(3)
    for _ in range(100):
        scene = sample_scene(rng)
        crown = scene.keypoints[0] - (0, HEAD * scene.scale)
        points = np.concatenate([scene.keypoints, crown[None]])
        assert points.min() >= 5, scene
        assert points.max() <= IMAGE_SIZE - 5, scene


def test_top_and_bottom_never_share_a_colour() -> None:
    rng = np.random.default_rng(4)
    scenes = [sample_scene(rng) for _ in range(100)]
    assert all(scene.top != scene.bottom for scene in scenes)


def test_backgrounds_are_taken_from_those_given() -> None:
    rng = np.random.default_rng(4)
    assert {sample_scene(rng, backgrounds=("room", "snow")).background for _ in range(30)} == {"room", "snow"}


def test_ground_truth_has_its_shapes_and_ranges(truths: list[Truth]) -> None:
    size = (IMAGE_SIZE, IMAGE_SIZE)
    for _, rendered in truths[:10]:
        assert rendered.picture.shape == (*size, 3)
        assert rendered.picture.dtype == np.uint8
        assert rendered.depth.shape == rendered.classes.shape == size
        assert rendered.normals.shape == (*size, 3)
        assert rendered.depth.min() >= 0
        assert rendered.depth.max() <= 1
        assert rendered.classes.max() < len(CLASSES)


def test_normals_have_unit_length_and_face_the_viewer(truths: list[Truth]) -> None:
    for _, rendered in truths[:10]:
        assert np.abs(np.linalg.norm(rendered.normals, axis=-1) - 1).max() < 0.01
        assert rendered.normals[..., 2].min() >= -1e-6


def test_the_acrobat_is_nearer_than_the_place(truths: list[Truth]) -> None:
    for _, rendered in truths[:10]:
        figure = rendered.classes >= CLASS["skin"]
        assert rendered.depth[figure].mean() > 0.5 > rendered.depth[~figure].mean()


def test_five_control_maps_differ(truths: list[Truth]) -> None:
    scene, rendered = truths[0]
    maps = {kind: control_map(scene, rendered, kind) for kind in CONTROL_TYPES}
    assert len(maps) == 5
    for kind, drawn in maps.items():
        assert drawn.shape == (IMAGE_SIZE, IMAGE_SIZE, 3), kind
        assert drawn.dtype == np.uint8, kind
        assert drawn.std() > 0, kind
    for one, other in combinations(maps, 2):
        assert not np.array_equal(maps[one], maps[other]), (one, other)


def test_an_unknown_control_map_names_the_choices(truths: list[Truth]) -> None:
    with pytest.raises(ValueError, match=f"'scribble'.*{', '.join(CONTROL_TYPES)}"):
        control_map(*truths[0], "scribble")
