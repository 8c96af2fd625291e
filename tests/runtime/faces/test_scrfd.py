"""SCRFD's outputs, read from a graph whose face is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio.detectors.onnx_network import Network
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


@pytest.mark.parametrize(
    ("size", "height"), [((2 * SIDE, SIDE), SIDE // 2), ((107, 107), SIDE), ((107, 10), 11)]
)
def test_the_input_is_what_insightface_makes_of_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], height: int
) -> None:
    """Red, green and blue around 0, in the upper left corner of black; 107 * (128 / 107) is below 128."""
    given = []
    call = Network.__call__

    def watched(self: Network, values: Any) -> Any:
        given.append(values[0])
        return call(self, values)

    monkeypatch.setattr(Network, "__call__", watched)
    find = open_finder(write_scrfd(tmp_path / "scrfd.onnx"), identity(tmp_path))
    find(Image.new("RGB", size, (255, 0, 51)))
    expected = np.full((3, SIDE, SIDE), -127.5 / 128)
    expected[:, :height] = ((np.array([255, 0, 51]) - 127.5) / 128)[:, None, None]
    np.testing.assert_allclose(given, [expected], atol=1e-6)
