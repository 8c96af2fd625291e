"""Hands and faces on pose maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intaglio.imaging.hands_and_face import BONE_COLORS, BONES, FACE_COLOR, HAND_COLOR
from intaglio.imaging.openpose import draw_pose


def whole(**parts: dict[int, tuple[float, float]]) -> Any:
    """One person, [1, 128, 3], with only these keypoints of its parts seen; they are pixels of 512 x 512."""
    first = {"body": 0, "left": 18, "right": 39, "face": 60}
    person = np.zeros((1, 128, 3))
    for name, points in parts.items():
        for index, (x, y) in points.items():
            person[0, first[name] + index] = (x / 512, y / 512, 1.0)
    return person


def drawn(**parts: dict[int, tuple[float, float]]) -> Any:
    return draw_pose(whole(**parts), width=512, height=512)


@pytest.mark.parametrize("hand", ["left", "right"])
def test_a_bone_runs_between_its_joints_in_its_colour(hand: str) -> None:
    """Bones as OpenPose numbers them; colours as matplotlib's `hsv_to_rgb` gives them to DWPose."""
    pixels = drawn(**{hand: {5: (100, 256), 6: (400, 256)}})
    assert BONES[5] == (5, 6)
    assert tuple(pixels[256, 250]) == BONE_COLORS[5] == (127, 255, 0)
    assert np.count_nonzero(pixels[:, 250].any(axis=-1)) in (2, 3)
    assert tuple(pixels[256, 100]) == tuple(pixels[256, 400]) == HAND_COLOR
    assert np.count_nonzero(pixels[:, 100].any(axis=-1)) in (8, 9)


def test_every_finger_starts_at_the_wrist() -> None:
    fingers = [BONES[first : first + 4] for first in range(0, 20, 4)]
    for number, bones in enumerate(fingers):
        first = 1 + 4 * number
        assert bones == ((0, first), (first, first + 1), (first + 1, first + 2), (first + 2, first + 3))
    assert len(set(BONE_COLORS)) == 20


def test_a_face_is_white_discs_and_what_is_not_seen_is_not_drawn() -> None:
    pixels = drawn(face={0: (100, 100), 67: (300, 200)})
    assert tuple(pixels[100, 100]) == tuple(pixels[200, 300]) == FACE_COLOR
    assert np.count_nonzero(pixels[:, 300].any(axis=-1)) in (6, 7)
    assert np.count_nonzero(pixels.any(axis=-1)) < 90  # two discs of radius 3
    assert not drawn().any()


def test_hands_and_faces_lie_upon_bodies_of_the_usual_look() -> None:
    body = {0: (100, 100), 1: (100, 200)}
    alone = draw_pose(whole(body=body)[:, :18], width=512, height=512)
    np.testing.assert_array_equal(drawn(body=body), alone)
    assert tuple(drawn(body=body, face={3: (100, 100)})[100, 100]) == FACE_COLOR


def test_strokes_grow_above_512_pixels() -> None:
    pixels = draw_pose(whole(face={0: (256, 256)}), width=1024, height=1024)
    assert np.count_nonzero(pixels[:, 512].any(axis=-1)) in (12, 13)
