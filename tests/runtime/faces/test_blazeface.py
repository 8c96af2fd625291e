"""Faces that BlazeFace finds in photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from intaglio.errors import ConfigError
from intaglio.faces.recognition import open_finder

from ...photographs import nobody, one_person
from ..detectors.graphs import write_graph
from .settings import FACES, identity


def test_a_face_is_where_it_is_in_every_shape_of_picture(tmp_path: Path) -> None:
    find = open_finder(FACES / "blazeface.onnx", identity(tmp_path))
    photo = one_person()
    (whole,) = find(photo)
    assert whole.box == pytest.approx([172, 65, 278, 171], abs=12)
    left_eye, right_eye, nose, mouth = whole.points
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_eye[1] < nose[1] < mouth[1]
    assert 0.5 < whole.confidence <= 1
    canvas = Image.new("RGB", (800, 620), (90, 90, 90))
    canvas.paste(photo, (200, 100))
    (moved,) = find(canvas)
    np.testing.assert_allclose(moved.points, whole.points + np.array([200, 100]), atol=12)
    assert not find(nobody())


def test_another_network_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    path = write_graph(tmp_path / "a.onnx", nodes, given=(1, 3, 64, 64), result=(1, 3, 64, 64))
    with pytest.raises(ConfigError, match=r"its outputs are .*; it must be .* BlazeFace or SCRFD"):
        open_finder(path, identity(tmp_path))
