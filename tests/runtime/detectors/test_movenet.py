"""Keypoints of one person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from intaglio.detectors.movenet import MARGINS, MoveNet
from intaglio.errors import ConfigError

from ...photographs import one_person
from .conftest import FILES
from .graphs import write_graph

BOX = (15.0, 14.0, 364.0, 507.0)
"""The person in `one_person`."""


def plain_readings() -> list[Any]:
    """[17, 3] x, y, confidence in pixels for each square, without and with mirroring."""
    session = onnxruntime.InferenceSession(
        FILES / "movenet-lightning.onnx", providers=["CPUExecutionProvider"]
    )
    photo = one_person()
    pairs = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))
    found = []
    for margin in MARGINS:
        side = round((BOX[3] - BOX[1]) * margin)
        left, top = round((BOX[0] + BOX[2]) / 2 - side / 2), round((BOX[1] + BOX[3]) / 2 - side / 2)
        square = photo.crop((left, top, left + side, top + side)).resize((192, 192), 2)
        for mirrored in (False, True):
            turned = square.transpose(0) if mirrored else square
            (output,) = session.run(None, {"input": np.asarray(turned, np.int64)[None]})
            points = [(x, y, confidence) for y, x, confidence in output[0, 0]]
            if mirrored:
                points = [(1 - x, y, confidence) for x, y, confidence in points]
                for one, other in pairs:
                    points[one], points[other] = points[other], points[one]
            found.append(np.array([(left + x * side, top + y * side, sure) for x, y, sure in points]))
    return found


def test_keypoints_are_the_most_confident_of_the_networks_own() -> None:
    readings = plain_readings()
    best = max(readings, key=lambda points: points[:, 2].mean())
    found = MoveNet(FILES / "movenet-lightning.onnx").person(one_person(), BOX)
    np.testing.assert_allclose(found, best, atol=1e-3)
    assert len({float(points[:, 2].mean()) for points in readings}) == 4  # all readings differ


def test_keypoints_lie_on_the_person() -> None:
    """Face and shoulders, as a person sees them in the photograph."""
    found = MoveNet(FILES / "movenet-lightning.onnx").person(one_person(), BOX)
    np.testing.assert_allclose(found[0, :2], (222, 122), atol=15)  # nose
    assert found[1, 0] > found[2, 0]  # her left eye is on the picture's right
    assert found[5, 0] > found[6, 0] + 150  # and so is her left shoulder
    assert (found[[0, 1, 2, 5, 6], 2] > 0.5).all()


@pytest.mark.parametrize("given", [(1, 192, 192, 3), (1, 3, 192, 192), (1, 192, 256, 3)])
def test_another_network_is_refused(tmp_path: Path, given: tuple[int, ...]) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    path = write_graph(tmp_path / "a.onnx", nodes, given=given, result=given)
    with pytest.raises(ConfigError, match=r"its (input is|outputs are) .*; it must be .* of MoveNet"):
        MoveNet(path)
