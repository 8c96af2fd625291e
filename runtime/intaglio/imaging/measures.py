"""What is measured at a picture's pixels: luma, sharpness, and a hash that equal-looking pictures share."""

from __future__ import annotations

from typing import Final

import numpy as np
import PIL.Image
from numpy.typing import NDArray

__all__ = ["SMALLEST_SIDE", "luma_of", "perceptual_hash", "sharpness_of"]

SMALLEST_SIDE: Final = 3
"""Pixels a side that a Laplacian needs."""
_WEIGHTS: Final = np.array([0.299, 0.587, 0.114], np.float32)
"""Of red, green and blue in luma: ITU-R BT.601."""
_SIDE: Final = 32
_FREQUENCIES: Final = 8
"""Of each axis; 8 times 8 bits are the hash."""


def luma_of(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[H, W] luma, 0 to 255, of [H, W, RGB]."""
    return np.asarray(pixels.astype(np.float32) @ _WEIGHTS)


def sharpness_of(pixels: NDArray[np.uint8]) -> float:
    """The variance of the Laplacian of the luma of [H, W, RGB] with sides of at least `SMALLEST_SIDE`.

    It grows with detail and falls with blur (Pech-Pacheco et al., Diatom autofocusing in brightfield
    microscopy, 2000).
    """
    luma = luma_of(pixels)
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    return float(laplacian.var())


def _cosines() -> NDArray[np.float64]:
    """[8, 32] rows of the discrete cosine transform (DCT-II)."""
    places = (2 * np.arange(_SIDE) + 1) * np.pi / (2 * _SIDE)
    return np.cos(np.arange(_FREQUENCIES)[:, None] * places[None])


_COSINES: Final = _cosines()


def perceptual_hash(pixels: NDArray[np.uint8]) -> int:
    """64 bits of [H, W, RGB]: which of the 64 lowest frequencies of the luma are above their median.

    The method is pHash's (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010).
    """
    small = PIL.Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), PIL.Image.Resampling.BOX)
    spectrum = _COSINES @ np.asarray(small, np.float64) @ _COSINES.T
    bits = (spectrum > np.median(spectrum)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
