"""Pose documents and the maps drawn of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio.imaging.openpose import (
    COLORS,
    LIMB_BRIGHTNESS,
    LIMBS,
    black_share,
    draw_pose,
    mirrored_pose,
    people_from_values,
    pose_document,
    read_pose,
)


def document(*people: dict[int, tuple[float, float]], width: int = 200, height: int = 100) -> dict[str, Any]:
    """People with only the given keypoints seen."""
    flat = [
        [value for index in range(18) for value in (*person.get(index, (0.0, 0.0)), float(index in person))]
        for person in people
    ]
    return {
        "canvas_width": width,
        "canvas_height": height,
        "people": [{"pose_keypoints_2d": values} for values in flat],
    }


def test_a_limb_runs_between_its_joints_in_its_colour() -> None:
    keypoints = read_pose(document({2: (40, 50), 3: (160, 50)}))  # right shoulder to right elbow
    drawn = draw_pose(keypoints, width=512, height=512)
    color = tuple(int(channel * LIMB_BRIGHTNESS) for channel in COLORS[LIMBS.index((2, 3))])
    assert tuple(drawn[256, 256]) == color
    assert tuple(drawn[256, round(0.2 * 512)]) == COLORS[2]
    assert tuple(drawn[256, round(0.8 * 512)]) == COLORS[3]
    rows = np.flatnonzero(drawn[:, 256].any(axis=-1))
    assert 7 <= len(rows) <= 10  # half width 4 on 512 pixels
    assert not drawn[:200].any()


@pytest.mark.parametrize(("side", "width"), [(256, 8), (512, 8), (1024, 16)])
def test_strokes_keep_their_width_up_to_512_and_grow_above(side: int, width: int) -> None:
    drawn = draw_pose(read_pose(document({2: (40, 50), 3: (160, 50)})), width=side, height=side)
    rows = np.flatnonzero(drawn[:, side // 2].any(axis=-1))
    assert abs(len(rows) - width) <= 1


def test_a_large_map_is_drawn_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 2048 x 2048 pixels each is the mean of 4 x 4, above of fewer."""
    drawn: list[tuple[int, int]] = []

    class Drawn(Exception):  # noqa: N818  (it ends the drawing, whose pixels nobody needs)
        pass

    def noted(mode: str, size: tuple[int, int]) -> Image.Image:
        drawn.append(size)
        raise Drawn

    monkeypatch.setattr(Image, "new", noted)
    corners = np.zeros((1, 18, 3))
    corners[0, 0], corners[0, 17] = (0, 0, 1), (1, 1, 1)
    for width, height in ((2048, 2048), (64, 64), (4096, 4096), (2049, 2048)):
        with pytest.raises(Drawn):
            draw_pose(corners, width=width, height=height)
    assert drawn == [(8192, 8192), (256, 256), (8192, 8192), (6147, 6144)]


def test_unseen_keypoints_are_not_drawn_and_everybody_is() -> None:
    assert not draw_pose(read_pose(document({})), width=64, height=64).any()
    one = draw_pose(read_pose(document({0: (50, 50)})), width=64, height=64)
    two = draw_pose(read_pose(document({0: (50, 50)}, {0: (150, 50)})), width=64, height=64)
    assert one[32, 16].any()
    assert not one[32, 48].any()
    assert two[32, 48].any()


def test_coordinates_are_relative_to_the_canvas() -> None:
    small, large = document({0: (50, 50)}), document({0: (100, 100)}, width=400, height=200)
    np.testing.assert_array_equal(read_pose(small), read_pose(large))


def test_a_document_is_read_back() -> None:
    people = np.random.default_rng(3).uniform(1, 90, (2, 18, 3)).round(2)
    read = read_pose(pose_document(people, width=200, height=100))
    np.testing.assert_allclose(read, people / [200, 100, 1])


def test_a_mirrored_pose_draws_the_mirrored_figure_with_left_and_right_exchanged() -> None:
    keypoints = read_pose(document({2: (40, 50), 3: (160, 50), 4: (160, 80)}))
    mirrored = mirrored_pose(keypoints)
    expected = read_pose(document({5: (160, 50), 6: (40, 50), 7: (40, 80)}))
    np.testing.assert_allclose(mirrored, expected)
    np.testing.assert_allclose(mirrored_pose(mirrored), keypoints)


def test_what_is_drawn_does_not_depend_on_the_black_around_it() -> None:
    """Only the part of the canvas around people is drawn; joints in two corners make it the whole canvas."""
    person = np.zeros((1, 18, 3))
    person[0] = np.random.default_rng(3).uniform(0.35, 0.6, (18, 3))
    corners = np.zeros((1, 18, 3))
    corners[0, 0], corners[0, 17] = (0, 0, 1), (1, 1, 1)
    alone = draw_pose(person, width=200, height=144)
    both = draw_pose(np.concatenate([person, corners]), width=200, height=144)
    np.testing.assert_array_equal(alone[20:-20, 20:-20], both[20:-20, 20:-20])
    assert both[0, 0].any()
    assert not alone[0, 0].any()


def test_nobody_and_people_outside_the_canvas_are_black() -> None:
    assert not draw_pose(np.zeros((1, 18, 3)), width=64, height=48).any()
    outside = np.full((1, 18, 3), 1.0)
    outside[..., :2] = 3.0
    assert not draw_pose(outside, width=64, height=48).any()
    assert not draw_pose(-outside * [1, 1, -1], width=64, height=48).any()


def test_a_black_share_is_that_of_a_sample() -> None:
    pixels = np.zeros((1024, 1024, 3), np.uint8)
    pixels[:, 768:] = 255
    assert black_share(pixels) == pytest.approx(0.75, abs=0.01)
    pixels[..., 1] = 200
    assert black_share(pixels) == 0
    assert black_share(pixels[:1, :3]) == 0


@pytest.mark.parametrize("keypoints", [18, 128])
def test_people_come_back_from_nested_lists(keypoints: int) -> None:
    people = np.random.default_rng(3).uniform(1, 90, (2, keypoints, 3))
    np.testing.assert_array_equal(people_from_values(people.tolist()), people)
    assert people_from_values([]).shape == (0, 18, 3)


@pytest.mark.parametrize("wrong", [[[[1, 2, 3]] * 17], [[[1, 2]] * 18], [[1, 2, 3]], [["a"]]])
def test_other_lists_are_no_people(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"18 or 128|could not convert"):
        people_from_values(wrong)


def test_a_document_of_whole_people_has_openposes_parts_and_the_same_bodies() -> None:
    people = np.random.default_rng(3).uniform(1, 90, (2, 128, 3)).round(2)
    made = pose_document(people, width=200, height=100)
    for person, entry in zip(people, made["people"], strict=True):
        assert entry["hand_left_keypoints_2d"] == person[18:39].reshape(-1).tolist()
        assert entry["hand_right_keypoints_2d"] == person[39:60].reshape(-1).tolist()
        assert entry["face_keypoints_2d"] == [*person[60:].reshape(-1).tolist(), *[0.0] * 6]
    np.testing.assert_allclose(read_pose(made), people[:, :18] / [200, 100, 1])
