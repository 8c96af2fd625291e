"""Tiny ONNX graphs with the inputs and outputs of detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

__all__ = ["write_graph"]


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
