"""Pictures as PNG, and how alike two of them are."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Pixels", "png_from_pixels", "psnr"]

Pixels = NDArray[np.uint8]


def png_from_pixels(pixels: Pixels) -> bytes:
    """[H, W, RGB] as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def psnr(found: Pixels, expected: Pixels) -> float:
    """Peak signal-to-noise ratio in dB of two pictures of 0..255. Equal pictures have 100.

    Raises:
        ValueError: their shapes differ.
    """
    if found.shape != expected.shape:
        raise ValueError(f"pictures of {found.shape} and {expected.shape} cannot be compared")
    error = float(np.mean((found.astype(np.float64) - expected.astype(np.float64)) ** 2))
    return 100.0 if error == 0 else float(10 * np.log10(255**2 / error))
