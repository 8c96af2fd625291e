"""Depth by any ONNX network: the mechanics, on tiny graphs. No package carries weights of depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from intaglio.contract.detectors import DetectorSource
from intaglio.detectors.depth import DepthDetector
from intaglio.errors import ConfigError, InvalidRequest

from .graphs import write_graph

AXES = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
MEAN_OF_CHANNELS = [
    helper.make_node("Constant", [], ["axes"], value=AXES),
    helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0),
]
"""[1, 3, H, W] -> [1, H, W]: "depth" is how bright the picture is."""


def detector(folder: Path, sides: tuple[Any, Any] = (8, 16), **values: Any) -> DepthDetector:
    file = write_graph(folder / "depth.onnx", MEAN_OF_CHANNELS, given=(1, 3, *sides), result=(1, *sides))
    return DepthDetector(DetectorSource(kind="depth", file=file, **values))


def ramp(width: int = 64, height: int = 32) -> Image.Image:
    """Black on the left, white on the right."""
    row = np.linspace(0, 255, width).round().astype(np.uint8)
    return Image.fromarray(np.repeat(np.repeat(row[None], height, 0)[..., None], 3, -1))


def test_the_map_has_the_photographs_size_and_the_whole_range(tmp_path: Path) -> None:
    found = detector(tmp_path)(ramp(), name="a").map
    assert found.shape == (32, 64, 3)
    assert found[:, 0].max() <= 3
    assert found[:, -1].min() >= 252
    assert (np.diff(found[0, :, 0].astype(int)) >= -1).all()


def test_what_is_near_is_bright_where_near_is_small(tmp_path: Path) -> None:
    plain = detector(tmp_path)(ramp(), name="a").map.astype(int)
    turned = detector(tmp_path, near="small")(ramp(), name="a").map.astype(int)
    np.testing.assert_allclose(turned, 255 - plain, atol=1)


def test_the_network_reads_normalised_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = detector(tmp_path, mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    seen: list[Any] = []
    network = one._network
    monkeypatch.setattr(one, "_network", lambda values: [seen.append(values), *network(values)][1:])
    one(Image.blend(ramp(16, 8), Image.new("RGB", (16, 8), "white"), 0.5), name="a")
    (values,) = seen
    assert values.shape == (1, 3, 8, 16)
    np.testing.assert_allclose(values[0, :, 0, -1], [1.0, 0.75, 0.5])  # white


def test_a_file_without_a_fixed_size_needs_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no fixed size; give the detector `size`"):
        detector(tmp_path, ("h", "w"))
    assert detector(tmp_path, ("h", "w"), size=28)(ramp(), name="a").map.shape == (32, 64, 3)


def test_a_picture_of_one_depth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"grey\.png: it has the same depth everywhere"):
        detector(tmp_path)(Image.new("RGB", (9, 9), "grey"), name="grey.png")


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    nodes = [*MEAN_OF_CHANNELS[:1], helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0)]
    nodes.append(helper.make_node("Log", ["m"], ["y"]))
    file = write_graph(tmp_path / "log.onnx", nodes, given=(1, 3, 8, 8), result=(1, 8, 8))
    source = DetectorSource(kind="depth", file=file, mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(ConfigError, match=r"log\.onnx: its output holds numbers that are not finite"):
        DepthDetector(source)(Image.new("RGB", (8, 8)), name="a")


def test_a_network_of_two_planes_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    file = write_graph(tmp_path / "a.onnx", nodes, given=(1, 3, 8, 8), result=(1, 3, 8, 8))
    with pytest.raises(ConfigError, match=r"its output is \[1, 3, 8, 8\]; it must be"):
        DepthDetector(DetectorSource(kind="depth", file=file))(ramp(), name="a")
