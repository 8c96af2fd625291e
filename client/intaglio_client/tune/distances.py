"""How far two pictures are apart: PSNR and SSIM, on arrays [H, W, RGB] of 0..255.

SSIM is written here in thirty lines of numpy: the library that has it, scikit-image, brings scipy and five
more packages, and nothing else of them would be used.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["EQUAL_PSNR", "Pixels", "psnr", "ssim"]

Pixels = NDArray[np.uint8]
EQUAL_PSNR: Final = 100.0
"""dB that stand for equal pictures, whose PSNR is infinite."""
_PEAK: Final = 255.0
_LUMA: Final = np.array([0.299, 0.587, 0.114])
"""ITU-R BT.601."""
_SIGMA: Final = 1.5
_RADIUS: Final = 5
_C1: Final = (0.01 * _PEAK) ** 2
_C2: Final = (0.03 * _PEAK) ** 2
"""Window and constants of Wang et al., "Image Quality Assessment: From Error Visibility to Structural
Similarity", 2004.
"""


def psnr(found: Pixels, expected: Pixels) -> float:
    """Peak signal-to-noise ratio in dB, at most `EQUAL_PSNR`.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(found, expected)
    error = float(np.mean((found.astype(np.float64) - expected.astype(np.float64)) ** 2))
    return EQUAL_PSNR if error == 0 else min(EQUAL_PSNR, float(10 * np.log10(_PEAK**2 / error)))


def ssim(found: Pixels, expected: Pixels) -> float:
    """Structural similarity of the luma, 1 for equal pictures: the mean over every place where the window
    lies inside the picture.

    Raises:
        ValueError: the shapes differ, or a side is shorter than the window's 11 pixels.
    """
    _check_shapes(found, expected)
    if min(found.shape[:2]) <= 2 * _RADIUS:
        raise ValueError(f"a picture of {found.shape} is smaller than the window of SSIM")
    one = found @ _LUMA
    other = expected @ _LUMA
    mean_one = _blurred(one)
    mean_other = _blurred(other)
    variance_one = _blurred(one**2) - mean_one**2
    variance_other = _blurred(other**2) - mean_other**2
    covariance = _blurred(one * other) - mean_one * mean_other
    luminance = (2 * mean_one * mean_other + _C1) / (mean_one**2 + mean_other**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_one + variance_other + _C2)
    return float(np.mean(luminance * structure))


def _blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted means over a Gaussian window, [H, W] -> [H - 10, W - 10]."""
    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    window = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    window /= window.sum()
    for axis in (0, 1):
        length = values.shape[axis] - 2 * _RADIUS
        shifted = (np.take(values, range(i, i + length), axis=axis) for i in range(len(window)))
        values = sum((w * part for w, part in zip(window, shifted, strict=True)), np.zeros(()))
    return values


def _check_shapes(found: Pixels, expected: Pixels) -> None:
    if found.shape != expected.shape:
        raise ValueError(f"pictures of {found.shape} and {expected.shape} cannot be compared")
