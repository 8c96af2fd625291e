"""Canny as a detector."""

from __future__ import annotations

import numpy as np
from PIL import Image

from intaglio.detectors.canny import CannyDetector


def test_edges_have_the_photographs_size() -> None:
    halves = np.zeros((40, 60, 3), np.uint8)
    halves[:, 30:] = 255
    detection = CannyDetector()(Image.fromarray(halves), name="a")
    assert detection.map.shape == (40, 60, 3)
    assert detection.people is None
    assert set(np.flatnonzero(detection.map.any(axis=(0, 2)))) <= {28, 29, 30, 31}
    assert detection.map.any()
