"""A toy network, as the tensor table would have it and as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from intaglio.contract.tensors import NetworkSpec, TensorSpec

NETWORK = NetworkSpec(
    "toy",
    (TensorSpec("x", ("B", 3), "compute"), TensorSpec("scale", (1,))),
    (TensorSpec("y", ("B", 3), "compute"),),
)


def write_toy(path: Path, *, dim: int = 3, extra: bool = False, kind: int = TensorProto.FLOAT) -> Path:
    """y = x * scale + weight."""
    value = helper.make_tensor_value_info
    inputs = [value("x", kind, ["B", dim]), value("scale", TensorProto.FLOAT, [1])]
    inputs += [value("unused", TensorProto.FLOAT, [1])] if extra else []
    nodes = [helper.make_node("Mul", ["x", "scale"], ["m"]), helper.make_node("Add", ["m", "weight"], ["y"])]
    weight = numpy_helper.from_array(np.full(dim, 10.0, np.float32), "weight")
    graph = helper.make_graph(nodes, "toy", inputs, [value("y", kind, ["B", dim])], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path
