"""Boxes of people."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper
from PIL import Image

from intaglio.detectors.nanodet import NanoDet, boxes_from_outputs, not_overlapping
from intaglio.errors import ConfigError

from ...photographs import nobody, one_person, street
from .conftest import FILES
from .graphs import write_graph


@pytest.fixture(scope="module")
def nanodet() -> NanoDet:
    return NanoDet(FILES / "nanodet.onnx")


def plain_boxes(outputs: list[Any]) -> list[tuple[float, ...]]:
    """The same as the paper writes it: one cell, one side at a time."""
    found = []
    for cells in (52, 26, 13):
        stride = 416 // cells
        scores = next(one for one in outputs if one.shape == (1, cells**2, 80))[0]
        sides = next(one for one in outputs if one.shape == (1, cells**2, 44))[0]
        for cell in range(cells**2):
            if scores[cell].argmax() != 0 or scores[cell, 0] <= 0.35:
                continue
            middle = ((cell % cells + 0.5) * stride, (cell // cells + 0.5) * stride)
            reach = []
            for side in range(4):
                weights = [math.exp(value) for value in sides[cell, 11 * side : 11 * side + 11]]
                mean = sum(index * weight for index, weight in enumerate(weights)) / sum(weights)
                reach.append(mean * stride)
            left, top = middle[0] - reach[0], middle[1] - reach[1]
            found.append((left, top, middle[0] + reach[2], middle[1] + reach[3], scores[cell, 0]))
    return found


def test_boxes_are_those_of_a_plain_reading() -> None:
    session = onnxruntime.InferenceSession(FILES / "nanodet.onnx", providers=["CPUExecutionProvider"])
    picture = np.asarray(one_person().resize((416, 416)), np.float32)[..., ::-1]
    values = (picture - [103.53, 116.28, 123.675]) / [57.375, 57.12, 58.395]
    outputs = session.run(None, {"input_1": values.transpose(2, 0, 1)[None].astype(np.float32)})
    plain = plain_boxes(outputs)
    assert plain
    np.testing.assert_allclose(boxes_from_outputs(outputs, side=416), plain, rtol=1e-5)


def test_a_box_is_where_the_person_is_in_every_shape_of_picture(nanodet: NanoDet) -> None:
    photo = one_person()
    (whole,) = nanodet.people(photo)
    canvas = Image.new("RGB", (1100, 700), (90, 90, 90))
    canvas.paste(photo, (500, 100))
    (moved,) = nanodet.people(canvas)
    np.testing.assert_allclose(moved[:4], whole[:4] + np.array([500, 100, 500, 100]), atol=25)
    assert whole[:4] == pytest.approx([15, 14, 364, 507], abs=15)


def test_people_on_a_street_are_found_and_a_cup_is_none(nanodet: NanoDet) -> None:
    assert not len(nanodet.people(nobody()))
    assert len(nanodet.people(street())) >= 3


def test_a_box_that_a_better_one_covers_is_dropped() -> None:
    boxes = np.array([[0, 0, 10, 10, 0.5], [1, 0, 11, 10, 0.9], [20, 0, 30, 10, 0.4]])
    assert not_overlapping(boxes).tolist() == [boxes[1].tolist(), boxes[2].tolist()]
    assert not_overlapping(boxes[:0]).shape == (0, 5)


@pytest.mark.parametrize("given", [(1, 3, 400, 400), (1, 416, 416, 3), (1, 3, 416, 416)])
def test_another_network_is_refused(tmp_path: Path, given: tuple[int, ...]) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    path = write_graph(tmp_path / "a.onnx", nodes, given=given, result=given)
    with pytest.raises(ConfigError, match=r"its (input is|outputs are) .*; it must be .* of NanoDet"):
        NanoDet(path)
