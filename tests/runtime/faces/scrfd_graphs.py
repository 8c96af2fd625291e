"""Graphs with the outputs of SCRFD that say the same of every picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["BOX", "POINTS", "SIDE", "write_embedder", "write_scrfd"]

SIDE = 128
BOX = (24.0, 40.0, 72.0, 104.0)
"""Of the one face, in pixels of the input."""
POINTS = np.array([[36.0, 60.0], [58.0, 61.0], [48.0, 74.0], [40.0, 88.0], [56.0, 89.0]])
_STRIDES = (8, 16, 32)


def write_scrfd(path: Path) -> Path:
    """One face of probability 0.9, and in the same place a second one of 0.8 that must go."""
    outputs: list[NDArray[np.float32]] = []
    kinds: dict[str, list[NDArray[np.float32]]] = {"score": [], "box": [], "points": []}
    for stride in _STRIDES:
        cells = SIDE // stride
        count = 2 * cells * cells
        kinds["score"].append(np.full((count, 1), 0.1, np.float32))
        kinds["box"].append(np.zeros((count, 4), np.float32))
        kinds["points"].append(np.zeros((count, 10), np.float32))
    # Stride 16, row 4, column 3: the anchor lies at (48, 64); both anchors of the cell see the face.
    cell = 2 * (4 * (SIDE // 16) + 3)
    anchor = np.array([48.0, 64.0])
    left, top, right, bottom = BOX
    reach = np.array([anchor[0] - left, anchor[1] - top, right - anchor[0], bottom - anchor[1]])
    for which, score in ((cell, 0.8), (cell + 1, 0.9)):
        kinds["score"][1][which] = score
        kinds["box"][1][which] = reach / 16
        kinds["points"][1][which] = (POINTS - anchor).ravel() / 16
    outputs = [*kinds["score"], *kinds["box"], *kinds["points"]]
    # The picture must be read, so that the graph has an input: its mean times 0 is added.
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    ]
    initial = [numpy_helper.from_array(np.zeros((), np.float32), "zero")]
    shown = []
    for index, values in enumerate(outputs):
        initial.append(numpy_helper.from_array(values, f"c{index}"))
        nodes.append(helper.make_node("Add", [f"c{index}", "nothing"], [f"y{index}"]))
        shown.append(helper.make_tensor_value_info(f"y{index}", TensorProto.FLOAT, values.shape))
    return _written(path, nodes, initial, (1, 3, SIDE, SIDE), shown)


def write_embedder(path: Path, side: int = 112) -> Path:
    """The mean colour of a face is its embedding."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["y"]),
    ]
    shown = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3))]
    return _written(path, nodes, [], (1, 3, side, side), shown)


def _written(path: Path, nodes: list, initial: list, given: tuple[int, ...], shown: list) -> Path:  # type: ignore[type-arg]
    taken = [helper.make_tensor_value_info("x", TensorProto.FLOAT, given)]
    graph = helper.make_graph(nodes, "made", taken, shown, initial)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path
