"""Boxes of people by YOLOX. No real weights: the graphs know where the boxes are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from intaglio.detectors.nanodet import NanoDet
from intaglio.detectors.persons import open_person_finder
from intaglio.detectors.yolox import YoloX, boxes_from_output, letterboxed
from intaglio.errors import ConfigError

from ...photographs import one_person
from ..objects.graphs import write_yolo
from .conftest import FILES

SIDE = 64
CELLS = 64 + 16 + 4


def output() -> Any:
    """[84, 85]. By hand: 8 x 8 cells of 8 pixels, 4 x 4 of 16 and 2 x 2 of 32, row by row."""
    rows = np.zeros((CELLS, 85), np.float32)

    def write(cell: int, *values: float, known: int = 0) -> None:
        rows[cell, :5], rows[cell, 5 + known] = values[:5], values[5]

    write(19, 0.5, 0.25, math.log(4), math.log(6), 0.9, 1.0)  # row 2, column 3: (28, 18), 32 x 48
    write(20, -0.4, 0.25, math.log(4), math.log(6), 0.8, 1.0)  # nearly the same box
    write(64 + 6, 0.5, 1.5, 0.0, math.log(2), 0.5, 0.8)  # row 1, column 2 of 16: (40, 40), 16 x 32
    write(80, 0.5, 0.5, 0.0, 0.0, 0.5, 0.59)  # 0.295 is no person
    write(83, 0.5, 0.5, 0.0, 0.0, 0.9, 0.9, known=2)  # a car
    return rows


FOUND = [(12, -6, 44, 42, 0.9), (32, 24, 48, 56, 0.4)]
DOUBLE = (12.8, -6, 44.8, 42, 0.8)


def test_boxes_are_those_computed_by_hand() -> None:
    boxes = boxes_from_output(output(), (SIDE, SIDE))
    np.testing.assert_allclose(boxes, [FOUND[0], DOUBLE, FOUND[1]], rtol=1e-5)


def test_boxes_are_those_of_a_plain_reading() -> None:
    """One cell at a time, of random numbers and an input that is no square."""
    rng = np.random.default_rng(2)
    rows = np.concatenate([rng.normal(0, 1, (8 * 4 * 21, 4)), rng.uniform(0, 1, (8 * 4 * 21, 6))], axis=1)
    plain, cell = [], 0
    for stride in (8, 16, 32):
        for row in range(128 // stride):
            for column in range(256 // stride):
                x, y, w, h, sure, person = rows[cell, :6]
                cell += 1
                if sure * person > 0.3:
                    x, y = (column + x) * stride, (row + y) * stride
                    w, h = math.exp(w) * stride, math.exp(h) * stride
                    plain.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2, sure * person))
    assert cell == len(rows)
    np.testing.assert_allclose(boxes_from_output(rows, (256, 128)), plain)


def test_a_file_that_gives_pixels_is_known_by_them() -> None:
    """YOLOX's exporter has the option `decode_in_inference`."""
    rows = output()
    for cell in range(CELLS):
        stride, first = (8, 0) if cell < 64 else (16, 64) if cell < 80 else (32, 80)
        row, column = divmod(cell - first, SIDE // stride)
        rows[cell, :2] = (rows[cell, :2] + (column, row)) * stride
        rows[cell, 2:4] = np.exp(rows[cell, 2:4]) * stride
    boxes = boxes_from_output(rows, (SIDE, SIDE))
    np.testing.assert_allclose(boxes, [FOUND[0], DOUBLE, FOUND[1]], rtol=1e-5)


@pytest.mark.parametrize(("size", "scale"), [((64, 64), 1.0), ((256, 100), 0.25), ((30, 128), 0.5)])
def test_boxes_are_in_pixels_of_the_picture_and_of_one_person_once(
    tmp_path: Path, size: tuple[int, int], scale: float
) -> None:
    network = YoloX(write_yolo(tmp_path / "a.onnx", output()[None]))
    found = network.people(Image.new("RGB", size))
    np.testing.assert_allclose(found[:, :4], np.array(FOUND)[:, :4] / scale, rtol=1e-5)
    np.testing.assert_allclose(found[:, 4], (0.9, 0.4), rtol=1e-5)


def test_nobody_is_no_box(tmp_path: Path) -> None:
    network = YoloX(write_yolo(tmp_path / "a.onnx", np.zeros((1, CELLS, 6), np.float32)))
    assert network.people(Image.new("RGB", (9, 7))).shape == (0, 5)


@pytest.mark.parametrize("size", [(512, 512), (700, 300), (120, 411)])
def test_the_input_is_that_of_opencv(size: tuple[int, int]) -> None:
    photo = one_person().resize(size)
    given, scale = letterboxed(photo, (416, 416))
    assert scale == pytest.approx(min(416 / size[0], 416 / size[1]))
    width, height = int(size[0] * scale), int(size[1] * scale)
    blue_first = np.asarray(photo)[..., ::-1]
    expected = np.full((416, 416, 3), 114, np.float32)
    expected[:height, :width] = cv2.resize(blue_first, (width, height), interpolation=cv2.INTER_LINEAR)
    assert given.shape == (1, 3, 416, 416)
    assert np.abs(given[0].transpose(1, 2, 0) - expected).max() <= 2


WRONG = {
    "of YOLOv5": ((1, 3 * CELLS, 85), (1, 3, SIDE, SIDE), "its outputs are"),
    "of YOLOv8": ((1, 84, CELLS), (1, 3, SIDE, SIDE), r"its outputs are \[1, 84, 84\]"),
    "after suppression": ((1, 100, 5), (1, 3, SIDE, SIDE), "its outputs are"),
    "of other classes": ((1, CELLS, 25), (1, 3, SIDE, SIDE), "its outputs are"),
    "of an odd size": ((1, CELLS, 85), (1, 3, 60, SIDE), "its input is"),
    "channels last": ((1, CELLS, 85), (1, SIDE, SIDE, 3), "its input is"),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_network_is_refused(tmp_path: Path, name: str) -> None:
    shape, given, says = WRONG[name]
    path = write_yolo(tmp_path / "a.onnx", np.zeros(shape, np.float32), given=given)
    with pytest.raises(ConfigError, match=rf"a\.onnx: {says}.*; it must be .* of YOLOX"):
        YoloX(path)
    with pytest.raises(ConfigError, match=rf"a\.onnx: {says}.*; it must be .* of NanoDet or YOLOX"):
        open_person_finder(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e4])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    rows = output()
    rows[19, 2] = value
    network = YoloX(write_yolo(tmp_path / "a.onnx", rows[None]))
    with pytest.raises(ConfigError, match=r"a\.onnx: its output holds numbers that are not finite"):
        network.people(Image.new("RGB", (64, 64)))


def test_the_file_says_which_network_it_is(tmp_path: Path) -> None:
    assert isinstance(open_person_finder(FILES / "nanodet.onnx"), NanoDet)
    assert isinstance(open_person_finder(write_yolo(tmp_path / "a.onnx", output()[None])), YoloX)
