"""SCRFD's outputs, read from a graph whose face is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from intaglio.faces.recognition import open_finder

from .scrfd_graphs import BOX, POINTS, SIDE, write_scrfd
from .settings import identity


@pytest.mark.parametrize("size", [(SIDE, SIDE), (2 * SIDE, SIDE), (64, 256)])
def test_the_face_is_found_once_in_pixels_of_the_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    find = open_finder(write_scrfd(tmp_path / "scrfd.onnx"), identity(tmp_path))
    (face,) = find(Image.new("RGB", size, "grey"))
    scale = max(size) / SIDE
    assert face.confidence == pytest.approx(0.9)
    np.testing.assert_allclose(face.box, np.array(BOX) * scale, rtol=1e-5)
    np.testing.assert_allclose(face.points, POINTS * scale, rtol=1e-5)
