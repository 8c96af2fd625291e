"""Pictures survive their PNG, and are as alike as they are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.measuring.pictures import png_from_pixels, psnr


def test_a_png_holds_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png_from_pixels(pixels)))), pixels)


def test_psnr_of_equal_pictures_and_of_a_known_error() -> None:
    flat = np.full((4, 4, 3), 100, np.uint8)
    assert psnr(flat, flat) == 100.0
    assert psnr(flat, flat + 1) == pytest.approx(48.13, abs=0.01)
    with pytest.raises(ValueError, match="cannot be compared"):
        psnr(flat, flat[:2])
