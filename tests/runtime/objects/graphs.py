"""ONNX graphs that find the same in every picture, in each layout of the YOLO family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["FOUND", "NAMES", "SIDE", "end_to_end", "write_yolo", "yolov5", "yolov8"]

SIDE = 64
NAMES = ("person", "traffic light", "bus")
FOUND = (
    # class, confidence, left, top, right, bottom in pixels of the input
    (2, 0.9, 4.0, 8.0, 40.0, 56.0),
    (0, 0.8, 30.0, 10.0, 50.0, 60.0),
    (0, 0.3, 2.0, 2.0, 10.0, 12.0),
)
_DOUBLED = (2, 0.7, 5.0, 8.0, 41.0, 56.0)
"""Nearly the bus again."""
_OTHER = (1, 0.6, 4.0, 8.0, 40.0, 57.0)
"""Where the bus is, but of another class."""
_UNLIKELY = (1, 0.1, 20.0, 20.0, 30.0, 30.0)
ALL = (*FOUND, _DOUBLED, _OTHER, _UNLIKELY)


def _centred(box: tuple[float, ...]) -> list[float]:
    left, top, right, bottom = box
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def yolov8(side: int = SIDE) -> NDArray[np.float32]:
    """[1, 4 + C, N]; objects lie at places that have nothing to do with where they are."""
    places = sum((side // stride) ** 2 for stride in (8, 16, 32))
    output = np.zeros((places, 4 + len(NAMES)), np.float32)
    for index, (class_id, score, *box) in enumerate(ALL):
        place = 7 * index + 1
        output[place, :4] = _centred(tuple(box))
        output[place, 4 + class_id] = score
    return output.T[None]


def yolov5(side: int = SIDE) -> NDArray[np.float32]:
    """[1, N, 5 + C]; the confidence is a product of two numbers."""
    places = 3 * sum((side // stride) ** 2 for stride in (8, 16, 32))
    output = np.zeros((1, places, 5 + len(NAMES)), np.float32)
    for index, (class_id, score, *box) in enumerate(ALL):
        place = 7 * index + 1
        output[0, place, :4] = _centred(tuple(box))
        output[0, place, 4] = 0.95
        output[0, place, 5 + class_id] = score / 0.95
    return output


def end_to_end() -> NDArray[np.float32]:
    """[1, 300, 6]; nothing overlaps, and rows that say nothing are zeros."""
    output = np.zeros((1, 300, 6), np.float32)
    for index, (class_id, score, *box) in enumerate((*FOUND[1:], FOUND[0], _UNLIKELY)):
        output[0, index] = [*box, score, class_id]
    return output


def write_yolo(
    path: Path,
    *outputs: NDArray[Any],
    given: tuple[Any, ...] = (1, 3, SIDE, SIDE),
    shown: tuple[Any, ...] | None = None,
    **metadata: str,
) -> Path:
    """A graph with these outputs; `shown` is the shape that the file states."""
    half = outputs[0].dtype == np.float16
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    ]
    initial = [numpy_helper.from_array(np.zeros((), outputs[0].dtype), "zero")]
    results = []
    for index, values in enumerate(outputs):
        initial.append(numpy_helper.from_array(np.ascontiguousarray(values), f"c{index}"))
        whole = f"whole{index}" if shown else f"output{index}"
        nodes.append(helper.make_node("Add", [f"c{index}", "nothing"], [whole]))
        shape = values.shape if shown is None else shown
        if shown:
            # Cut where only the run says, so that the shape is not known before.
            axis = next(axis for axis, one in enumerate(shown) if axis and isinstance(one, str))
            initial += [numpy_helper.from_array(np.array([0]), "start")]
            initial += [numpy_helper.from_array(np.array([axis]), "axis")]
            initial += [numpy_helper.from_array(np.array([values.shape[axis]]), "stop")]
            nodes += [
                helper.make_node("Cast", ["nothing"], ["none"], to=TensorProto.INT64),
                helper.make_node("Add", ["stop", "none"], ["end"]),
                helper.make_node("Slice", [whole, "start", "end", "axis"], [f"output{index}"]),
            ]
        results.append(helper.make_tensor_value_info(f"output{index}", kind, shape))
    taken = [helper.make_tensor_value_info("images", kind, given)]
    graph = helper.make_graph(nodes, "made", taken, results, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    named = {"names": str(dict(enumerate(NAMES)))} | metadata
    helper.set_model_props(model, {key: value for key, value in named.items() if value})
    onnx.save(model, path)
    return path
