"""Keypoints of one person by SimCC rows. No real weights: the graphs know where the keypoints are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from intaglio.detectors.simcc import SimCC, _cut, keypoints_from_scores, window_of
from intaglio.errors import ConfigError

from ...photographs import one_person
from ..objects.graphs import write_yolo
from .graphs import simcc_rows, write_simcc, write_spot_finder

SIZE = (48, 64)
BORDER = (120.0, 60.0, 220.0, 190.0)
"""A box that reaches out of a picture of 200 x 160 pixels."""
WINDOW = (107.5, 125 - 250 / 3, 232.5, 125 + 250 / 3)
"""A quarter larger it is 125 x 162.5 around (170, 125); 48:64 then makes it 125 x 166.67."""


def peaks(count: int) -> Any:
    rng = np.random.default_rng(count)
    columns = [rng.integers(0, 96, count), rng.uniform(0, 1, count), rng.integers(0, 128, count)]
    return np.stack([*columns, rng.uniform(0, 1, count)], axis=1)


def test_the_window_has_the_shape_of_the_input() -> None:
    np.testing.assert_allclose(window_of(BORDER, SIZE), WINDOW)
    # 40 x 200 is 50 x 250, and 187.5 wide at 48:64.
    np.testing.assert_allclose(window_of((100, 0, 140, 200), SIZE), (26.25, -25, 213.75, 225))
    assert np.ptp(window_of((5, 5, 5, 5), SIZE)[::2]) > 0


@pytest.mark.parametrize("count", [17, 133])
def test_keypoints_are_those_of_a_plain_reading(tmp_path: Path, count: int) -> None:
    given = peaks(count)
    network = SimCC(write_simcc(tmp_path / "a.onnx", given, SIZE))
    assert network.keypoints == count
    found = network.person(Image.new("RGB", (200, 160)), BORDER)
    plain = []
    for x, x_score, y, y_score in given:
        left, top, right, bottom = WINDOW
        at = (left + x / 96 * (right - left), top + y / 128 * (bottom - top))
        plain.append((*at, x_score if x_score < y_score else y_score))
    np.testing.assert_allclose(found, plain, rtol=1e-6)


def test_a_place_is_half_a_pixel_of_the_input() -> None:
    """By hand: 15 pixels of 125 / 48 to the right of 107.5, and 32 of the same below 41.67."""
    rows = simcc_rows(np.array([[30, 0.9, 64, 0.4]]), SIZE)
    found = keypoints_from_scores(rows[0][0], rows[1][0])
    np.testing.assert_allclose(found, [(15, 32, 0.4)], rtol=1e-6)
    scale = 125 / 48
    np.testing.assert_allclose((WINDOW[0] + 15 * scale, WINDOW[1] + 32 * scale), (146.5625, 125.0), rtol=1e-9)


def test_spots_are_found_where_they_are_in_the_picture(tmp_path: Path) -> None:
    """The cut and its colours, for a box that reaches out of the picture and for one that fills it."""
    spots = [(150, 80), (190, 150), (125, 120)]
    pixels = np.zeros((160, 200, 3), np.uint8)
    for channel, (x, y) in enumerate(spots):
        pixels[y - 3 : y + 4, x - 3 : x + 4, channel] = 255
    network = SimCC(write_spot_finder(tmp_path / "a.onnx", 17, SIZE))
    for box in (BORDER, (0.0, 0.0, 200.0, 160.0)):
        found = network.person(Image.fromarray(pixels), box)
        np.testing.assert_allclose(found[:3, :2], spots, atol=4)
        np.testing.assert_array_equal(found[3:6], found[:3])
        whole = [(255 - 123.675) / 58.395, (255 - 116.28) / 57.12, (255 - 103.53) / 57.375]
        np.testing.assert_allclose(found[:3, 2], whole, rtol=1e-4)


@pytest.mark.parametrize("box", [(15, 14, 364, 507), (300, 200, 560, 700), (-80, -90, 60, 40)])
def test_the_cut_is_that_of_warp_affine(box: Any) -> None:
    """DWPose cuts with OpenCV. Only where a pixel lies half outside Pillow mixes no black into it."""
    photo, size = one_person(), (288, 384)
    left, top, right, bottom = window_of(box, size)
    scale = np.array([[size[0] / (right - left), 0.0], [0.0, size[1] / (bottom - top)]])
    matrix = np.concatenate([scale, -scale @ [[left], [top]]], axis=1)
    expected = cv2.warpAffine(np.asarray(photo), matrix, size, flags=cv2.INTER_LINEAR)
    difference = np.abs(_cut(photo, (left, top, right, bottom), size).astype(int) - expected)
    assert np.mean(difference > 4) < 0.01
    assert difference.mean() < 0.5


def test_a_file_that_does_not_state_its_keypoints_is_asked(tmp_path: Path) -> None:
    """mmdeploy writes such files: `simcc_x` is [batch, MatMulsimcc_x_dim_1, 576]."""
    stated = "MatMulsimcc_x_dim_1"
    assert SimCC(write_spot_finder(tmp_path / "a.onnx", 133, SIZE, stated=stated)).keypoints == 133
    other = write_spot_finder(tmp_path / "b.onnx", 26, SIZE, stated=stated)
    with pytest.raises(
        ConfigError, match=r"its outputs are \[1, 26, 96\], \[1, 26, 128\]; it must be .*DWPose"
    ):
        SimCC(other)


WRONG = {
    "of a hand": (((1, 21, 96), (1, 21, 128)), (1, 3, 64, 48), r"its outputs are \[1, 21, 96\]"),
    "turned": (((1, 17, 128), (1, 17, 96)), (1, 3, 64, 48), "its outputs are"),
    "one place a pixel": (((1, 17, 48), (1, 17, 64)), (1, 3, 64, 48), "its outputs are"),
    "two counts": (((1, 17, 96), (1, 133, 128)), (1, 3, 64, 48), "its outputs are"),
    "heat maps": (((1, 17, 16, 12),), (1, 3, 64, 48), r"its outputs are \[1, 17, 16, 12\]"),
    "three outputs": (((1, 133, 96), (1, 133, 128), (1, 133, 96)), (1, 3, 64, 48), "its outputs are"),
    "channels last": (((1, 17, 96), (1, 17, 128)), (1, 64, 48, 3), r"its input is \[1, 64, 48, 3\]"),
    "no size": (((1, 17, 96), (1, 17, 128)), (1, 3, "h", "w"), r"its input is \[1, 3, None, None\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_network_is_refused(tmp_path: Path, name: str) -> None:
    shapes, given, says = WRONG[name]
    path = write_yolo(tmp_path / "a.onnx", *(np.zeros(one, np.float32) for one in shapes), given=given)
    with pytest.raises(
        ConfigError, match=rf"a\.onnx: {says}.*; it must be .*simcc_x \[1, K, 2 W\].*17 .*133"
    ):
        SimCC(path)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken = peaks(17)
    broken[3, 1] = np.nan
    network = SimCC(write_simcc(tmp_path / "a.onnx", broken, SIZE))
    with pytest.raises(ConfigError, match=r"a\.onnx: its output holds numbers that are not finite"):
        network.person(Image.new("RGB", (64, 64)), (0, 0, 64, 64))
