"""A picture agrees with its own control map, and less with another one."""

from __future__ import annotations

import numpy as np
import pytest

from miniature.agreement import agreement, edge_f1, iou
from miniature.world import Render, Scene, control_map

Truth = tuple[Scene, Render]


@pytest.mark.parametrize("kind", ["canny", "depth", "segmentation", "normals"])
def test_a_picture_agrees_with_its_own_map(truths: list[Truth], kind: str) -> None:
    judged = truths[:20]
    maps = [control_map(scene, rendered, kind) for scene, rendered in judged]
    pictures = [rendered.picture for _, rendered in judged]
    shifted = maps[1:] + maps[:1]
    own = np.mean([agreement(kind, p, m) for p, m in zip(pictures, maps, strict=True)])
    others = np.mean([agreement(kind, p, m) for p, m in zip(pictures, shifted, strict=True)])
    assert own >= 2 * others
    assert own >= 0.5


def test_overlap_of_masks() -> None:
    left, all_of_it = np.array([True, False]), np.array([True, True])
    nothing = np.array([False, False])
    assert iou(left, all_of_it) == 0.5
    assert iou(left, nothing) == 0.0
    assert iou(nothing, nothing) == 1.0


def test_an_edge_one_pixel_off_counts_and_one_further_off_does_not() -> None:
    edge, near, far = (np.zeros((9, 9), bool) for _ in range(3))
    edge[:, 2] = True
    near[:, 3] = True
    far[:, 6] = True
    assert edge_f1(edge, near) == 1.0
    assert edge_f1(edge, far) == 0.0
    assert edge_f1(edge, np.zeros((9, 9), bool)) == 0.0
