"""An image as it came."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image

from intaglio_client import Image


def test_bytes_are_written_as_they_came(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (3, 2), (10, 20, 30)).save(buffer, "PNG")
    image = Image(buffer.getvalue(), {"seed": 7})
    path = image.save(tmp_path / "out" / "fox.jpg")
    assert path.read_bytes() == buffer.getvalue(), "the suffix converts nothing"
    assert image.seed == 7
    assert image.pixels.shape == (2, 3, 3)
    np.testing.assert_array_equal(image.pixels[0, 0], (10, 20, 30))
