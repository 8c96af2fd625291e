"""Operations and bytes of one pass of a network, counted in its ONNX graph.

Operations are those of matrix products and convolutions; a multiplication and an addition count as two.
Bytes are what these operators read and write, and the network's own inputs and outputs: what a pass moves
where normalisations, activations and sums are fused into them, and attention keeps its scores on the chip.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from intaglio.contract.tensors import AxisSizes, NetworkSpec
from intaglio.errors import BuildError
from intaglio_export.card.graphs import KINDS, Kind
from intaglio_export.roofline.shapes import Tensor, tensors_of

__all__ = ["PassWork", "count_graph", "graph_work"]

_MATRIX: Final = ("MatMul", "Gemm", "Conv")
_UNCOUNTED: Final = (
    "Attention", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "GRU", "LSTM", "MatMulInteger",
    "QLinearConv", "QLinearMatMul", "RNN", "If", "Loop", "Scan",
)  # fmt: skip
"""Operators that compute much, and that none of our graphs has."""
_BETWEEN: Final = ("Add", "Cast", "Div", "Identity", "Mul", "Reshape", "Sub", "Where")
"""Operators between a product of attention and its softmax."""


@dataclass(frozen=True, slots=True)
class PassWork:
    """What a pass needs at least."""

    operations: Mapping[Kind, float]
    bytes: float

    @property
    def total(self) -> float:
        """Operations of all kinds."""
        return sum(self.operations.values())


def graph_work(path: Path, network: NetworkSpec, sizes: AxisSizes) -> PassWork:
    """The work of a pass of `network`, whose graph lies at `path`. Weights beside it are not read.

    Raises:
        BuildError: the graph has an operator that cannot be counted.
    """
    model = onnx.load(str(path), load_external_data=False)
    return count_graph(model, {spec.name: spec.shape(sizes) for spec in network.inputs})


def count_graph(model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]]) -> PassWork:
    """The work of a pass of `model` on inputs of these shapes."""
    for node in model.graph.node:
        if node.op_type in _UNCOUNTED or node.domain not in ("", "ai.onnx"):
            raise BuildError(f"{node.op_type} {node.name}: an operator whose work is not counted")
    tensors = tensors_of(model, inputs)
    scores = _scores(model.graph)
    operations: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
    moved = 0
    seen: set[str] = set()
    for node in model.graph.node:
        if node.op_type in _MATRIX:
            names = [name for name in (*node.input, *node.output) if name]
            operations[_kind(node, scores)] += _operations(node, tensors)
            moved += sum(tensors[name].bytes for name in names if name not in scores)
            seen.update(names)
    ends = {one.name for one in (*model.graph.input, *model.graph.output)} - seen
    return PassWork(operations, float(moved + sum(tensors[name].bytes for name in ends)))


def _operations(node: onnx.NodeProto, tensors: Mapping[str, Tensor]) -> float:
    """Twice the multiplications."""
    size = tensors[node.output[0]].size
    if node.op_type == "Conv":
        return 2.0 * size * math.prod(tensors[node.input[1]].shape[1:])
    transposed = any(one.name == "transA" and one.i for one in node.attribute)
    return 2.0 * size * tensors[node.input[0]].shape[0 if transposed else -1]


def _kind(node: onnx.NodeProto, scores: set[str]) -> Kind:
    if node.op_type == "Conv":
        return "convolution"
    return "attention" if scores & {*node.input, *node.output} else "product"


def _scores(graph: onnx.GraphProto) -> set[str]:
    """The values between the two products of every attention."""
    makers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found: set[str] = set()
    for node in graph.node:
        if node.op_type == "Softmax":
            found |= _before(node.input[0], makers)
            found |= _after(node.output, users)
    return found


def _before(name: str, makers: Mapping[str, onnx.NodeProto]) -> set[str]:
    """`name`, and what it was made of since the last other operator."""
    found, open_names = set(), [name]
    while open_names:
        one = open_names.pop()
        found.add(one)
        maker = makers.get(one)
        if maker is not None and maker.op_type in _BETWEEN:
            open_names += [given for given in maker.input if given not in found]
    return found


def _after(names: Iterable[str], users: Mapping[str, list[onnx.NodeProto]]) -> set[str]:
    """`names`, and what is made of them up to the next other operator."""
    found, open_names = set(), list(names)
    while open_names:
        one = open_names.pop()
        found.add(one)
        for user in users.get(one, ()):
            if user.op_type in _BETWEEN:
                open_names += [made for made in user.output if made not in found]
    return found
