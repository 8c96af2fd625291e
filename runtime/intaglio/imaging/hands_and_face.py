"""Hands and faces beside OpenPose's bodies: how they are drawn, and what a document calls them.

A hand has 21 keypoints: the wrist, then four of each finger from its root, the thumb first. A face has the 68
of iBUG 300-W. OpenPose's documents have 70 of a face; the last two are the pupils. Colours and widths are
those of DWPose's `draw_handpose` and `draw_facepose` (IDEA-Research/DWPose, annotator/dwpose/util.py) on a
512 pixel map: bones 2 pixels wide in the colours of the rainbow, joints discs of radius 4, keypoints of a
face discs of radius 3.
"""

from __future__ import annotations

import colorsys
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

__all__ = [
    "BONES",
    "BONE_COLORS",
    "FACE_COLOR",
    "FACE_KEYPOINTS",
    "HAND_COLOR",
    "HAND_KEYPOINTS",
    "document_of_parts",
    "draw_hands_and_face",
]

HAND_KEYPOINTS: Final = 21
FACE_KEYPOINTS: Final = 68
BONES: Final = (
    (0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6), (6, 7), (7, 8), (0, 9), (9, 10),
    (10, 11), (11, 12), (0, 13), (13, 14), (14, 15), (15, 16), (0, 17), (17, 18), (18, 19), (19, 20),
)  # fmt: skip
BONE_COLORS: Final = tuple(
    tuple(int(255 * channel) for channel in colorsys.hsv_to_rgb(index / len(BONES), 1.0, 1.0))
    for index in range(len(BONES))
)
HAND_COLOR: Final = (0, 0, 255)
FACE_COLOR: Final = (255, 255, 255)
_BONE: Final = 2.0
_HAND_RADIUS: Final = 4.0
_FACE_RADIUS: Final = 3.0
_PUPILS: Final = 2
_PARTS: Final = (
    ("hand_left_keypoints_2d", 0, HAND_KEYPOINTS),
    ("hand_right_keypoints_2d", HAND_KEYPOINTS, 2 * HAND_KEYPOINTS),
    ("face_keypoints_2d", 2 * HAND_KEYPOINTS, 2 * HAND_KEYPOINTS + FACE_KEYPOINTS),
)


def draw_hands_and_face(
    draw: ImageDraw.ImageDraw, points: NDArray[np.float64], seen: NDArray[np.bool_], *, unit: float
) -> None:
    """Draw the left hand, the right hand and the face: 110 `points` [110, 2] in pixels of the canvas.

    `seen` [110] says which of them are drawn. `unit` is one pixel of a 512 pixel map.
    """
    for first in (0, HAND_KEYPOINTS):
        for (start, end), color in zip(BONES, BONE_COLORS, strict=True):
            if seen[first + start] and seen[first + end]:
                ends = (*points[first + start], *points[first + end])
                draw.line(ends, fill=color, width=max(1, round(_BONE * unit)))
        hand = slice(first, first + HAND_KEYPOINTS)
        _draw_discs(draw, points[hand][seen[hand]], _HAND_RADIUS * unit, HAND_COLOR)
    face = slice(2 * HAND_KEYPOINTS, None)
    _draw_discs(draw, points[face][seen[face]], _FACE_RADIUS * unit, FACE_COLOR)


def _draw_discs(
    draw: ImageDraw.ImageDraw, points: NDArray[np.float64], radius: float, color: tuple[int, int, int]
) -> None:
    for x, y in points:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def document_of_parts(keypoints: NDArray[np.float64]) -> dict[str, list[float]]:
    """OpenPose's keys of one person's hands and face, [110, 3] x, y, confidence."""
    parts = {name: keypoints[first:end].reshape(-1).tolist() for name, first, end in _PARTS}
    parts["face_keypoints_2d"] += [0.0] * (3 * _PUPILS)  # nothing that is read here has them
    return parts
