"""Type and shape of every value in an ONNX graph, for given shapes of its inputs.

Inner sizes of our graphs are arithmetic on the shapes of other values. ONNX's inference of a whole graph
gives up at that arithmetic. Here nodes are taken in their order: small values that are known are computed,
and all other shapes are inferred node by node.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import infer_node_outputs

from intaglio.errors import BuildError

__all__ = ["Tensor", "tensors_of"]

_SMALL: Final = 4096
"""Most elements of a value that is computed: shapes, indices, masks of a text."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One value of a graph."""

    shape: tuple[int, ...]
    kind: int
    """TensorProto.DataType."""

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        return self.size * helper.tensor_dtype_to_np_dtype(self.kind).itemsize


def tensors_of(model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Every value of `model` by its name; its weights need not be loaded.

    Args:
        inputs: the shape of each input.

    Raises:
        BuildError: a shape depends on the values of inputs; names the node.
    """
    graph = model.graph
    found = _Found({one.domain: one.version for one in model.opset_import}, model.ir_version)
    for given in graph.input:
        found.tensors[given.name] = Tensor(inputs[given.name], given.type.tensor_type.elem_type)
    for weight in graph.initializer:
        found.tensors[weight.name] = Tensor(tuple(weight.dims), weight.data_type)
        if weight.data_location != onnx.TensorProto.EXTERNAL:
            found.learn(weight.name, weight)
    for node in graph.node:
        found.add(node)
    return found.tensors


@dataclass
class _Found:
    opsets: Mapping[str, int]
    ir_version: int
    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Small values that are known."""

    def learn(self, name: str, value: onnx.TensorProto) -> None:
        """Keep a value where it is small."""
        if math.prod(value.dims) <= _SMALL:
            self.values[name] = numpy_helper.to_array(value)

    def add(self, node: onnx.NodeProto) -> None:
        """Find the outputs of `node`; those of the nodes before are there."""
        if node.op_type == "Shape":
            begin, end = (
                _attribute(node, name, otherwise) for name, otherwise in (("start", 0), ("end", None))
            )
            shape = np.array(self.tensors[node.input[0]].shape[begin:end], np.int64)
            self._keep(node.output[0], shape)
            return
        self._infer(node)
        if all(name in self.values for name in node.input if name) and self._is_small(node):
            self._compute(node)
        missing = [name for name in node.output if name and name not in self.tensors]
        if missing:
            raise BuildError(f"{node.op_type} {node.name}: the shape of {missing[0]} depends on values")

    def _infer(self, node: onnx.NodeProto) -> None:
        schema = onnx.defs.get_schema(node.op_type, self.opsets[node.domain], node.domain)
        types = {name: _type(self.tensors[name]) for name in node.input if name}
        known = {
            name: numpy_helper.from_array(self.values[name]) for name in node.input if name in self.values
        }
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        inferred = infer_node_outputs(
            schema, node, types, known, opset_imports=opsets, ir_version=self.ir_version
        )
        for name, one in inferred.items():
            axes = one.tensor_type.shape.dim
            if one.tensor_type.HasField("shape") and all(axis.HasField("dim_value") for axis in axes):
                shape = tuple(axis.dim_value for axis in axes)
                self.tensors[name] = Tensor(shape, one.tensor_type.elem_type)

    def _is_small(self, node: onnx.NodeProto) -> bool:
        sizes = [self.tensors[name].size for name in node.output if name in self.tensors]
        return all(size <= _SMALL for size in sizes)

    def _compute(self, node: onnx.NodeProto) -> None:
        given = {name: self.values[name] for name in node.input if name}
        results = ReferenceEvaluator(node, opsets=dict(self.opsets)).run(None, given)
        for name, value in zip(node.output, results, strict=True):
            self._keep(name, np.asarray(value))

    def _keep(self, name: str, value: NDArray[Any]) -> None:
        self.values[name] = value
        self.tensors[name] = Tensor(value.shape, helper.np_dtype_to_tensor_dtype(value.dtype))


def _type(tensor: Tensor) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(tensor.kind, tensor.shape)


def _attribute(node: onnx.NodeProto, name: str, otherwise: int | None) -> int | None:
    return next((one.i for one in node.attribute if one.name == name), otherwise)
