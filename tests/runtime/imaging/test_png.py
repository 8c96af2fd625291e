"""PNG in bands: every picture comes back, whatever the number of bands and threads."""

from __future__ import annotations

import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from intaglio.imaging import png
from intaglio.imaging.png import png_from_pixels


@pytest.mark.parametrize(("height", "width"), [(1, 1), (63, 5), (64, 64), (65, 7), (200, 136)])
def test_a_picture_comes_back(height: int, width: int) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    with Image.open(io.BytesIO(png_from_pixels(pixels, text={"note": "a b"}))) as image:
        assert (image.format, image.mode, image.info["note"]) == ("PNG", "RGB", "a b")
        image.load()
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_every_checksum_is_right() -> None:
    data = png_from_pixels(np.random.default_rng(1).integers(0, 256, (150, 9, 3), np.uint8), text={"a": "b"})
    body, place = b"", 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, values = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", data, place + 8 + length) == (zlib.crc32(kind + values),)
        body += values if kind == b"IDAT" else b""
        place += 12 + length
    assert len(zlib.decompress(body)) == 150 * (
        1 + 9 * 3
    )  # which checks the sum that the bands' sums were joined into


def test_the_bytes_do_not_depend_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 40, 3), np.uint8)
    found = png_from_pixels(pixels, text={})
    monkeypatch.setattr(png, "_threads", lambda _: ThreadPoolExecutor(1))
    assert png_from_pixels(pixels, text={}) == found


def test_threads_are_kept_but_not_across_a_fork() -> None:
    assert png._threads(os.getpid()) is png._threads(os.getpid())
    assert png._threads(os.getpid()) is not png._threads(0)


def test_flat_regions_are_small() -> None:
    assert len(png_from_pixels(np.full((512, 512, 3), 200, np.uint8), text={})) < 10_000
