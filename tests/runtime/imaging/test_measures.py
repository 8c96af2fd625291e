"""Sharpness and the perceptual hash, beside OpenCV and scipy."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import fft
from skimage import data

from intaglio.imaging.measures import luma_of, perceptual_hash, sharpness_of


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    return Image.fromarray(data.astronaut())


def test_sharpness_is_opencvs(photograph: Image.Image) -> None:
    pixels = np.asarray(photograph)
    theirs = cv2.Laplacian(luma_of(pixels), cv2.CV_32F)[1:-1, 1:-1].var()
    assert sharpness_of(pixels) == pytest.approx(theirs, rel=1e-4)
    blurred = np.asarray(photograph.filter(ImageFilter.GaussianBlur(2)))
    assert sharpness_of(blurred) < sharpness_of(pixels) / 5


def test_the_hash_is_of_the_lowest_frequencies(photograph: Image.Image) -> None:
    small = np.asarray(photograph.convert("L").resize((32, 32), Image.Resampling.BOX), np.float64)
    lowest = fft.dctn(small, type=2)[:8, :8]
    bits = (lowest > np.median(lowest)).ravel()
    assert f"{perceptual_hash(np.asarray(photograph)):064b}" == "".join(str(int(bit)) for bit in bits)


def test_the_hash_outlives_a_smaller_worse_copy(photograph: Image.Image) -> None:
    file = io.BytesIO()
    photograph.resize((200, 200)).save(file, "JPEG", quality=40)
    copy = perceptual_hash(np.asarray(Image.open(file)))
    whole = perceptual_hash(np.asarray(photograph))
    assert (copy ^ whole).bit_count() <= 4
    assert (perceptual_hash(data.coffee()) ^ whole).bit_count() > 15
