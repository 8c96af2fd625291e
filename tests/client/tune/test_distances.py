"""PSNR and SSIM, with numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from intaglio_client.tune.distances import EQUAL_PSNR, Pixels, psnr, ssim


def grey(value: int, *, height: int = 16, width: int = 20) -> Pixels:
    return np.full((height, width, 3), value, np.uint8)


def test_psnr_of_a_known_error() -> None:
    assert psnr(grey(0), grey(255)) == 0.0
    assert psnr(grey(10), grey(20)) == pytest.approx(10 * np.log10(255**2 / 100))
    assert psnr(grey(7), grey(7)) == EQUAL_PSNR


def test_ssim_of_flat_pictures_is_its_term_of_luminance() -> None:
    """Without structure the second factor is 1, and C1 is 0.01 x 255, squared."""
    c1 = 2.55**2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert ssim(grey(100), grey(150)) == pytest.approx(expected)
    assert ssim(grey(9), grey(9)) == pytest.approx(1.0)


def test_ssim_of_a_negative_is_below_zero() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 1), np.uint8).repeat(3, axis=2)
    assert ssim(noise, noise) == pytest.approx(1.0)
    assert ssim(noise, 255 - noise) < -0.5


def test_ssim_is_what_scikit_image_computes() -> None:
    """`structural_similarity` of the luma in scikit-image 0.26, with `gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=255`.
    """
    rng = np.random.default_rng(1)
    one = rng.integers(0, 256, (24, 40, 3), np.uint8)
    other = (0.7 * one + 0.3 * rng.integers(0, 256, one.shape)).astype(np.uint8)
    assert ssim(one, other) == pytest.approx(0.8759708805, abs=1e-9)


def test_pictures_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        psnr(grey(0), grey(0, width=8))
    with pytest.raises(ValueError, match="smaller than the window"):
        ssim(grey(0, height=10), grey(0, height=10))
