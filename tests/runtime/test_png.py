"""PNG in bands: every picture comes back, whatever the number of bands and threads."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from intaglio import png
from intaglio.png import png_from_pixels


@pytest.mark.parametrize(("height", "width"), [(1, 1), (63, 5), (64, 64), (65, 7), (200, 136)])
def test_a_picture_comes_back(height: int, width: int) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    with Image.open(io.BytesIO(png_from_pixels(pixels, text={"note": "a b"}))) as image:
        assert (image.format, image.mode, image.info["note"]) == ("PNG", "RGB", "a b")
        image.load()
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_the_bytes_do_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 40, 3), np.uint8)
    found = png_from_pixels(pixels, text={})
    monkeypatch.setattr(png, "_THREADS", 1)
    assert png_from_pixels(pixels, text={}) == found


def test_flat_regions_are_small() -> None:
    assert len(png_from_pixels(np.full((512, 512, 3), 200, np.uint8), text={})) < 10_000
