"""Tiny ONNX graphs with the inputs and outputs of detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..objects.graphs import write_yolo

__all__ = ["simcc_rows", "write_graph", "write_simcc", "write_spot_finder"]


def write_graph(
    path: Path, nodes: list[Any], *, given: tuple[Any, ...], result: tuple[Any, ...], dtype: int = 1
) -> Path:
    """A graph `x` -> `y` of these shapes; `dtype` is the input's type."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", dtype, given)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, result)],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def simcc_rows(peaks: NDArray[np.float64], size: tuple[int, int]) -> tuple[NDArray[np.float32], ...]:
    """Outputs [1, K, 2 W] and [1, K, 2 H] with `peaks` [K, 4]: place and score along x, the same along y."""
    width, height = size
    rows = tuple(np.full((1, len(peaks), 2 * side), -0.5, np.float32) for side in (width, height))
    for row, places in zip(rows, (peaks[:, :2], peaks[:, 2:]), strict=True):
        for index, (place, score) in enumerate(places):
            row[0, index, int(place)] = score
    return rows


def write_simcc(path: Path, peaks: NDArray[np.float64], size: tuple[int, int]) -> Path:
    """A network that finds `peaks` in every picture."""
    return write_yolo(path, *simcc_rows(peaks, size), given=(1, 3, size[1], size[0]))


def write_spot_finder(
    path: Path, count: int, size: tuple[int, int], *, stated: int | str | None = None
) -> Path:
    """A network whose keypoint k is the pixel with the most red, green or blue, for k = 0, 1, 2, 0, ...

    Its scores are the values that it was given there. The file states `stated` keypoints, else `count`.
    """
    width, height = size
    constants = {
        "order": np.arange(count) % 3,
        "ones": np.ones(count, np.float32),
        "nothing": np.zeros((), np.float32),
        "twice": np.array([1, 1, 1, 2]),
    }
    initial = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    # How many keypoints there are is known only when it runs.
    nodes = [
        helper.make_node("ReduceMax", ["input"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "nothing"], ["zero"]),
        helper.make_node("Add", ["ones", "zero"], ["kept"]),
        helper.make_node("NonZero", ["kept"], ["found"]),
        helper.make_node("Squeeze", ["found"], ["flat"]),
        helper.make_node("Gather", ["order", "flat"], ["colors"]),
    ]
    results = []
    for name, axis, side in (("x", 2, width), ("y", 3, height)):
        initial.append(numpy_helper.from_array(np.array([axis]), f"{name}_axis"))
        initial.append(numpy_helper.from_array(np.array([3]), f"{name}_last"))
        initial.append(numpy_helper.from_array(np.array([1, 3, 2 * side]), f"{name}_shape"))
        nodes += [
            helper.make_node("ReduceMax", ["input", f"{name}_axis"], [f"{name}_most"], keepdims=0),
            helper.make_node("Unsqueeze", [f"{name}_most", f"{name}_last"], [f"{name}_apart"]),
            helper.make_node("Tile", [f"{name}_apart", "twice"], [f"{name}_doubled"]),
            helper.make_node("Reshape", [f"{name}_doubled", f"{name}_shape"], [f"{name}_flat"]),
            helper.make_node("Gather", [f"{name}_flat", "colors"], [f"simcc_{name}"], axis=1),
        ]
        results.append(
            helper.make_tensor_value_info(f"simcc_{name}", TensorProto.FLOAT, (1, count, 2 * side))
        )
    given = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ("batch", 3, height, width))]
    graph = helper.make_graph(nodes, "spots", given, results, initial)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path
