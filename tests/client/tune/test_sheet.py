"""The contact sheet as a PNG."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image

from intaglio_client.tune.sheet import MOST_BYTES, sheet_of


def test_rows_are_scenes_and_columns_are_settings() -> None:
    red, blue = (np.full((96, 64, 3), colour, np.uint8) for colour in ((200, 0, 0), (0, 0, 200)))
    sheet = PIL.Image.open(io.BytesIO(sheet_of(["converged", "euler 30"], [[red, blue], [blue, red]])))
    pixels = np.asarray(sheet.convert("RGB")).astype(int)
    assert pixels.shape == (34 + 2 * 98, 2 * 66, 3)
    for (y, x), red_part in {(80, 30): 200, (80, 100): 0, (180, 30): 0, (180, 100): 200}.items():
        assert abs(pixels[y, x, 0] - red_part) < 20


def test_tiles_become_smaller_until_the_file_is_small_enough() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    data = sheet_of(["a"] * 7, [[noise] * 7] * 5)
    assert len(data) <= MOST_BYTES
    assert PIL.Image.open(io.BytesIO(data)).width < 7 * 256
