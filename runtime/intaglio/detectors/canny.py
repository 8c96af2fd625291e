"""Canny edges as a detector: it has no files."""

from __future__ import annotations

import numpy as np
from PIL import Image

from intaglio.detectors.detection import Detection
from intaglio.imaging.canny import canny_map

__all__ = ["CannyDetector"]


class CannyDetector:
    """OpenCV's edges with fixed thresholds."""

    def __call__(self, photo: Image.Image, *, name: str) -> Detection:
        """The edges of `photo`.

        Raises:
            MissingExtra: OpenCV is not installed.
        """
        return Detection(canny_map(np.asarray(photo, dtype=np.uint8)))
