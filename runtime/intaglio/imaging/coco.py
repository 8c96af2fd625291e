"""COCO's 17 body keypoints as OpenPose's 18, and which of several readings of one person are the same.

COCO order (cocodataset.org): nose, left and right eye, ear, shoulder, elbow, wrist, hip, knee, ankle. The 133
of COCO-WholeBody (jin-s13/COCO-WholeBody on GitHub) begin with these. Then come 6 of the feet, 68 of the
face, 21 of the left hand and 21 of the right one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "COCO_KEYPOINTS",
    "COCO_MIRRORED",
    "COCO_WHOLE_KEYPOINTS",
    "distinct_people",
    "openpose_from_coco",
    "openpose_from_coco_whole",
]

COCO_KEYPOINTS: Final = 17
COCO_WHOLE_KEYPOINTS: Final = 133
COCO_MIRRORED: Final = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
"""For each keypoint, the one that takes its place in a mirrored picture."""
_LEFT_SHOULDER: Final = 5
_RIGHT_SHOULDER: Final = 6
_NECK: Final = 1
_OPENPOSE_ORDER: Final = (0, 0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""COCO index of each OpenPose keypoint. COCO has no neck: that entry is replaced."""
_FACE: Final = slice(23, 91)
_HANDS: Final = slice(91, 133)
"""Of COCO-WholeBody, as the face."""
_SAME_PERSON: Final = 0.1
"""Median distance of keypoints, as a share of the larger extent, below which two readings are one person."""

Keypoints = NDArray[np.float64]


def openpose_from_coco(people: Keypoints) -> Keypoints:
    """[people, 17 or more, 3] x, y, confidence -> [people, 18, 3] in OpenPose's order.

    The neck is the middle of the shoulders, and is as certain as the less certain of them.
    """
    body = people[:, _OPENPOSE_ORDER].copy()
    shoulders = people[:, (_LEFT_SHOULDER, _RIGHT_SHOULDER)]
    body[:, _NECK, :2] = shoulders[:, :, :2].mean(axis=1)
    body[:, _NECK, 2] = shoulders[:, :, 2].min(axis=1)
    return body


def openpose_from_coco_whole(people: Keypoints) -> Keypoints:
    """[people, 133, 3] of COCO-WholeBody -> [people, 128, 3]: OpenPose's body, left and right hand, face.

    The keypoints of the feet are left out: COCO-18, which ControlNets are trained with, has none.
    """
    return np.concatenate([openpose_from_coco(people), people[:, _HANDS], people[:, _FACE]], axis=1)


def distinct_people(people: Keypoints) -> Keypoints:
    """Those of [people, 17 or more, 3] that are not another reading of a person who is read more confidently.

    The first 17 keypoints are compared, those of the body. The most confident person comes first.
    """
    order = np.argsort(-people[:, :COCO_KEYPOINTS, 2].mean(axis=1), kind="stable")
    kept: list[Keypoints] = []
    for person in people[order]:
        extent = float(np.ptp(person[:COCO_KEYPOINTS, :2], axis=0).max())
        others = np.array(kept).reshape(-1, *person.shape)
        if np.all(_distances(person, others) > _SAME_PERSON * extent):
            kept.append(person)
    return np.array(kept).reshape(-1, *people.shape[1:])


def _distances(person: Keypoints, others: Keypoints) -> Keypoints:
    """[others]: median over the keypoints, in pixels: hidden ones are guessed anew in every reading."""
    body = slice(COCO_KEYPOINTS)
    apart = np.linalg.norm(others[:, body, :2] - person[body, :2], axis=2)
    return np.asarray(np.median(apart, axis=1))
