"""Boxes of people within the picture. The graphs know where the boxes are; MoveNet is the real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from intaglio.detectors.movenet import MoveNet
from intaglio.detectors.persons import boxes_within
from intaglio.detectors.pose import PoseDetector

from ...photographs import one_person
from ..objects.graphs import write_yolo
from .conftest import FILES


def test_boxes_are_cut_at_every_edge_and_keep_their_order() -> None:
    boxes = np.array([[-5.0, -6, 200, 90, 0.9], [10, 20, 30, 40, 0.8], [90, 70, 1e9, 1e9, 0.7]])
    cut = [[0, 0, 100, 80, 0.9], [10, 20, 30, 40, 0.8], [90, 70, 100, 80, 0.7]]
    np.testing.assert_array_equal(boxes_within(boxes, (100, 80)), cut)
    assert boxes[0, 0] == -5, "what was given stays"


def test_boxes_without_area_in_the_picture_are_left_out() -> None:
    outside = [[-9.0, 0, 0, 50, 0.9], [100, 0, 120, 50, 0.9], [0, 80, 50, 99, 0.9], [0, -9, 50, -1, 0.9]]
    without_area = [[10.0, 10, 10, 50, 0.9], [30, 10, 20, 50, 0.9]]
    assert boxes_within(np.array(outside + without_area), (100, 80)).shape == (0, 5)
    assert boxes_within(np.zeros((0, 5)), (100, 80)).shape == (0, 5)


def test_movenet_reads_the_person_in_a_box_without_end(tmp_path: Path) -> None:
    """YOLOX gives a box of 28 million pixels a side, and another one that is not in the picture."""
    rows = np.zeros((1, 84, 85), np.float32)
    rows[0, 19, :6] = 0.5, 0.25, 13.0, 13.0, 0.9, 1.0
    rows[0, 20, :6] = 60.0, 0.25, 0.0, 0.0, 0.8, 1.0
    persons = write_yolo(tmp_path / "a.onnx", rows)
    photo = one_person()
    (found,) = PoseDetector(FILES / "movenet-lightning.onnx", persons).people(photo)
    alone = MoveNet(FILES / "movenet-lightning.onnx").person(photo, (0, 0, *photo.size))
    np.testing.assert_allclose(found[0], alone[0])  # the nose, which comes first in both orders
    assert found[0, 2] > 0.5
