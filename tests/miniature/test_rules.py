"""The rules that judge painted pictures, judged themselves on rendered truth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from miniature import palette, rules
from miniature.backgrounds import BACKGROUNDS, paint_background
from miniature.canvas import CLASS
from miniature.rules import Image, Reading
from miniature.world import Render, Scene

Truth = tuple[Scene, Render]
Read = tuple[Scene, Render, Reading]


@pytest.fixture(scope="module")
def read(truths: list[Truth]) -> list[Read]:
    return [(scene, rendered, rules.read_figure(rendered.picture)) for scene, rendered in truths]


@pytest.fixture(scope="module")
def empty() -> list[Image]:
    """Places with nobody in them."""
    places = [(place, seed) for place in BACKGROUNDS for seed in range(3)]
    canvases = [paint_background(place, np.random.default_rng(seed)) for place, seed in places]
    return [np.clip(canvas.picture, 0, 255).astype(np.uint8) for canvas in canvases]


def found(scene: Scene, reading: Reading) -> rules.Joints:
    return rules.find_keypoints(reading, top=scene.top, bottom=scene.bottom, skin=scene.skin)


def test_attire_is_read_as_it_is(read: list[Read]) -> None:
    worn = [
        rules.wears(seen, found(scene, seen), piece, getattr(scene, piece))
        for scene, _, seen in read
        for piece in ("top", "bottom")
    ]
    assert np.mean(worn) >= 0.97


def test_other_colours_are_refused(read: list[Read]) -> None:
    accepted = [
        rules.wears(seen, found(scene, seen), piece, colour)
        for scene, _, seen in read
        for piece in ("top", "bottom")
        for colour in palette.ATTIRE
        if colour != getattr(scene, piece)
    ]
    assert len(accepted) == 2 * 6 * len(read)
    assert np.mean(accepted) <= 0.05


def test_places_are_recognised(truths: list[Truth]) -> None:
    right = [rules.background_of(rendered.picture) == scene.background for scene, rendered in truths]
    assert np.mean(right) >= 0.97


def test_keypoints_are_where_the_pose_has_them(read: list[Read]) -> None:
    counts = [rules.pck(found(scene, reading), scene.keypoints) for scene, _, reading in read]
    right, judged = np.sum(counts, 0)
    assert judged == 8 * len(read)
    assert right / judged >= 0.95


def test_keypoints_do_not_fit_the_pose_of_another_scene(read: list[Read]) -> None:
    others = [scene for scene, _, _ in read[1:] + read[:1]]
    counts = [
        rules.pck(found(scene, reading), other.keypoints)
        for (scene, _, reading), other in zip(read, others, strict=True)
    ]
    right, judged = np.sum(counts, 0)
    assert right / judged <= 0.30


def test_pck_counts_true_joints_and_a_missing_one_as_wrong(read: list[Read]) -> None:
    truth = read[0][0].keypoints
    exact = {name: truth[rules.INDEX[name]] for name in rules.LIMB_JOINTS}
    assert rules.pck(exact, truth) == (8, 8)
    assert rules.pck({}, truth) == (0, 8)
    extent = float((truth.max(0) - truth.min(0)).max())
    assert rules.pck(exact | {"left_knee": exact["left_knee"] + (0.11 * extent, 0)}, truth) == (7, 8)
    assert rules.pck(exact | {"left_knee": exact["left_knee"] + (0.09 * extent, 0)}, truth) == (8, 8)


def test_nobody_is_found_where_nobody_is(empty: list[Image]) -> None:
    for picture in empty:
        reading = rules.read_figure(picture)
        assert rules.find_keypoints(reading, top="red", bottom="blue", skin="tan") == {}
        assert not any(
            rules.wears(reading, {}, piece, colour)
            for piece in ("top", "bottom")
            for colour in palette.ATTIRE
        )


@pytest.mark.parametrize("limb", sorted(palette.LIMBS))
def test_a_hidden_limb_gives_no_joints(truths: list[Truth], limb: str) -> None:
    side, part = limb.split("_")
    lost = {f"{side}_{joint}" for joint in (("elbow", "wrist") if part == "forearm" else ("knee", "ankle"))}
    scene, rendered = truths[0]
    painted = (rendered.classes == CLASS[limb]).astype(np.uint8)
    picture = rendered.picture.copy()
    picture[cv2.dilate(painted, np.ones((7, 7), np.uint8)) > 0] = 128
    assert not lost & set(found(scene, rules.read_figure(picture)))
