"""How well a picture agrees with a control map."""

from __future__ import annotations

import cv2
import numpy as np

from miniature.backgrounds import SIZE
from miniature.canvas import CLASS, light_on
from miniature.rules import Image, Mask, Reading, lab, read_figure
from miniature.world import SEGMENTATION_COLOURS, canny_map

__all__ = ["agreement"]

_NEAR = 140
"""Grey of a depth map beyond which a pixel belongs to the figure."""
_FACING = ((0, 0, 1), (0, 0.9, 0.43))
"""Normals of flat backgrounds: what faces the viewer, and the ground."""


def agreement(kind: str, picture: Image, given: Image) -> float:
    """How well the control map read from `picture` agrees with the map given; 1 is perfect.

    canny: F1 of edges within one pixel. segmentation: mean IoU of limbs, top and bottom. depth: IoU of the
    near layer (the figure). normals: correlation of the brightness that the light gives these normals with
    the figure's brightness in the picture. Pose is judged by `rules.pck`.
    """
    if kind == "canny":
        return edge_f1(canny_map(picture)[..., 0] > 0, given[..., 0] > 0)
    reading = read_figure(picture)
    if kind == "depth":
        return iou(reading.figure, given[..., 0] > _NEAR)
    if kind == "segmentation":
        return _segmentation(reading, given)
    return _normals(reading, picture, given)


def _segmentation(reading: Reading, given: Image) -> float:
    seen = reading.limbs | {"top": reading.top_mask, "bottom": reading.bottom_mask}
    found = []
    for name, mask in seen.items():
        wanted = (given == SEGMENTATION_COLOURS[CLASS[name]]).all(-1)
        if wanted.any() or mask.any():
            found.append(iou(mask, wanted))
    return float(np.mean(found))


def _normals(reading: Reading, picture: Image, given: Image) -> float:
    normals = given.astype(np.float32) / 127.5 - 1
    flat = np.any([np.abs(normals - facing).max(-1) < 0.03 for facing in _FACING], 0)
    expected = np.where(flat, 0, light_on(normals))
    brightness = lab(picture)[..., 0]
    shape = np.zeros((SIZE, SIZE), np.float32)
    for mask in (*reading.limbs.values(), reading.top_mask, reading.bottom_mask):
        if mask.any():
            shape[mask] = brightness[mask] / brightness[mask].max()
    if not shape.any():
        return 0.0
    return max(0.0, float(np.corrcoef(shape.ravel(), expected.ravel())[0, 1]))


def iou(one: Mask, other: Mask) -> float:
    """Intersection over union; two empty masks agree."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def edge_f1(one: Mask, other: Mask) -> float:
    """F1 of two edge maps where an edge within one pixel counts."""
    if not one.any() or not other.any():
        return float(not one.any() and not other.any())
    near = [cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0 for mask in (one, other)]
    precision = float(near[1][one].mean())
    recall = float(near[0][other].mean())
    return 2 * precision * recall / max(precision + recall, 1e-9)
