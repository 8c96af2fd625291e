"""Canny edges, as canny ControlNets are trained on."""

# ruff: noqa: PLC0415  (OpenCV is an extra)

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import MissingExtra

__all__ = ["CANNY_THRESHOLDS", "canny_map"]

CANNY_THRESHOLDS: Final = (100, 200)
"""controlnet_aux 0.0.10 `CannyDetector`'s defaults."""


def canny_map(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """White Canny edges of [H, W, RGB] `pixels` on black, same shape.

    Raises:
        MissingExtra: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtra("opencv-python-headless", extra="serve") from error
    edges = cv2.Canny(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), *CANNY_THRESHOLDS)
    return np.repeat(np.asarray(edges, dtype=np.uint8)[..., None], 3, axis=-1)
