"""COCO's 17 body keypoints as OpenPose's 18, and which of several readings of one person are the same.

COCO order (cocodataset.org): nose, left and right eye, ear, shoulder, elbow, wrist, hip, knee, ankle.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["COCO_KEYPOINTS", "COCO_MIRRORED", "distinct_people", "openpose_from_coco"]

COCO_KEYPOINTS: Final = 17
COCO_MIRRORED: Final = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
"""For each keypoint, the one that takes its place in a mirrored picture."""
_LEFT_SHOULDER: Final = 5
_RIGHT_SHOULDER: Final = 6
_NECK: Final = 1
_OPENPOSE_ORDER: Final = (0, 0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""COCO index of each OpenPose keypoint. COCO has no neck: that entry is replaced."""
_SAME_PERSON: Final = 0.1
"""Median distance of keypoints, as a share of the larger extent, below which two readings are one person."""

Keypoints = NDArray[np.float64]


def openpose_from_coco(people: Keypoints) -> Keypoints:
    """[people, 17, 3] x, y, confidence -> [people, 18, 3] in OpenPose's order.

    The neck is the middle of the shoulders, and is as certain as the less certain of them.
    """
    body = people[:, _OPENPOSE_ORDER].copy()
    shoulders = people[:, (_LEFT_SHOULDER, _RIGHT_SHOULDER)]
    body[:, _NECK, :2] = shoulders[:, :, :2].mean(axis=1)
    body[:, _NECK, 2] = shoulders[:, :, 2].min(axis=1)
    return body


def distinct_people(people: Keypoints) -> Keypoints:
    """Those of [people, 17, 3] that are not another reading of a person who is read more confidently.

    The most confident person comes first.
    """
    order = np.argsort(-people[:, :, 2].mean(axis=1), kind="stable")
    kept: list[Keypoints] = []
    for person in people[order]:
        extent = float(np.ptp(person[:, :2], axis=0).max())
        if all(_distance(person, one) > _SAME_PERSON * extent for one in kept):
            kept.append(person)
    return np.array(kept).reshape(-1, *people.shape[1:])


def _distance(person: Keypoints, other: Keypoints) -> float:
    """Median over the keypoints, in pixels: hidden ones are guessed anew in every reading."""
    return float(np.median(np.linalg.norm(person[:, :2] - other[:, :2], axis=1)))
