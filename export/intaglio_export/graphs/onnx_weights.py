"""Attach weights to a graph that was exported without them, one tensor at a time.

So memory holds the network only once. The tracer's own export of SDXL's UNet holds the weights three times
(parameters, folded transposes, the file), which is 16 GB in float16.

A graph that was exported without parameters has them as inputs. Here each becomes an initializer, as the
graph uses it, under its parameter's name: `NAME.T` where it is transposed (the name that a refit looks for)
and `NAME.expanded` where axes are added. Constants are folded as the tracer would have folded them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

__all__ = ["attach_weights"]

_LARGEST_PROTOBUF: Final = 2**31 - 2**20
"""Bytes of weights above which a graph keeps them in a file of their own: protobuf's limit is 2 GiB."""
_ALIGNMENT: Final = 4096
"""Bytes; every tensor in that file begins at a multiple, so that it can be mapped."""
_INLINE_BYTES: Final = 1024
"""Tensors up to this size stay in the graph, because shapes are read from them before the file is opened."""
_FOLDED: Final = frozenset(
    "Add Cast Concat Div Gather Identity Mul Reshape Shape Slice Sqrt Squeeze Sub Transpose Unsqueeze".split()  # noqa: SIM905
)
_SUFFIXES: Final = {"Transpose": ".T", "Unsqueeze": ".expanded"}

Array = NDArray[Any]


@dataclass(frozen=True)
class _Weight:
    """A parameter as the graph uses it."""

    name: str
    parameter: str
    steps: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Operations on the parameter: (`Transpose`, permutation) or (`Unsqueeze`, axes)."""

    def after(self, operation: str, numbers: tuple[int, ...]) -> _Weight:
        """This weight after one more operation."""
        suffix = _SUFFIXES[operation]
        already_expanded = operation == "Unsqueeze" and self.name.endswith(suffix)
        name = self.name if already_expanded else self.name + suffix
        return _Weight(name, self.parameter, (*self.steps, (operation, numbers)))

    def values(self, parameters: Mapping[str, Tensor]) -> Array:
        """The parameter's values as the graph uses them."""
        values: Array = parameters[self.parameter].detach().cpu().numpy()
        for operation, numbers in self.steps:
            if operation == "Transpose":
                values = values.transpose(numbers)
            else:
                values = np.expand_dims(values, numbers)
        return np.ascontiguousarray(values)


def attach_weights(path: Path, parameters: Mapping[str, Tensor], *, inline: int = _LARGEST_PROTOBUF) -> None:
    """Give the graph at `path` its weights; more than `inline` bytes of them go to `<path>.data` beside it.

    Raises:
        ValueError: the graph uses a parameter in two ways that would have the same name.
    """
    model = onnx.load(path, load_external_data=False)
    weights = _fold(model.graph, parameters)
    kept = [item for item in model.graph.input if item.name not in parameters]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    if sum(parameters[weight.parameter].nbytes for weight in weights) <= inline:
        model.graph.initializer.extend(
            numpy_helper.from_array(weight.values(parameters), weight.name) for weight in weights
        )
    else:
        with path.with_name(f"{path.name}.data").open("wb") as file:
            model.graph.initializer.extend(
                _stream(weight, weight.values(parameters), file) for weight in weights
            )
    onnx.save(model, path)


def _stream(weight: _Weight, values: Array, file: BinaryIO) -> onnx.TensorProto:
    if values.nbytes <= _INLINE_BYTES:
        return numpy_helper.from_array(values, weight.name)
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    tensor = onnx.TensorProto(
        name=weight.name,
        dims=values.shape,
        data_type=onnx.helper.np_dtype_to_tensor_dtype(values.dtype),
        data_location=onnx.TensorProto.EXTERNAL,
    )
    where = {"location": Path(file.name).name, "offset": file.tell(), "length": values.nbytes}
    tensor.external_data.extend(
        onnx.StringStringEntryProto(key=key, value=str(value)) for key, value in where.items()
    )
    file.write(values.data.cast("B"))
    return tensor


def _fold(graph: onnx.GraphProto, parameters: Mapping[str, Tensor]) -> list[_Weight]:
    """Remove every node of `graph` that depends only on constants and weights.

    Returns the weights that the other nodes use, as they use them.
    """
    weights = {item.name: _Weight(item.name, item.name) for item in graph.input if item.name in parameters}
    constants: dict[str, Array] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif (weight := _folded_weight(node, weights, constants)) is not None:
            weights[node.output[0]] = weight
        elif node.op_type in _FOLDED and all(name in constants for name in node.input if name):
            constants[node.output[0]] = _evaluate(node, constants)
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    names = {output: weight.name for output, weight in weights.items() if output in used}
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
    _replace(graph.node, nodes)
    _replace(graph.initializer, _tensors(constants, used))
    _replace(graph.value_info, ())
    return _distinct(weights[output] for output in names)


def _distinct(weights: Iterable[_Weight]) -> list[_Weight]:
    """Each weight once; ValueError where two different ones have the same name."""
    found: dict[str, _Weight] = {}
    for weight in weights:
        other = found.setdefault(weight.name, weight)
        if other != weight:
            raise ValueError(
                f"{weight.name}: used in two ways under one name: {other.steps} and {weight.steps}"
            )
    return list(found.values())


def _replace(field: Any, items: Iterable[Any]) -> None:
    kept = list(items)
    del field[:]
    field.extend(kept)


def _tensors(constants: Mapping[str, Array], used: set[str]) -> list[onnx.TensorProto]:
    return [
        numpy_helper.from_array(np.asarray(values), name)
        for name, values in constants.items()
        if name in used
    ]


def _folded_weight(
    node: onnx.NodeProto, weights: Mapping[str, _Weight], constants: Mapping[str, Array]
) -> _Weight | None:
    """The weight that `node` makes by moving the axes of another; None when `node` does anything else."""
    weight = weights.get(node.input[0]) if node.input else None
    if weight is None:
        return None
    if node.op_type == "Transpose":
        permutation = next(item.ints for item in node.attribute if item.name == "perm")
        return weight.after("Transpose", tuple(permutation))
    if node.op_type == "Unsqueeze" and node.input[1] in constants:
        axes = constants[node.input[1]].reshape(-1)
        return weight.after("Unsqueeze", tuple(int(axis) for axis in axes))
    return None


def _evaluate(node: onnx.NodeProto, constants: Mapping[str, Array]) -> Array:
    given = {name: constants[name] for name in node.input if name}
    (values,) = ReferenceEvaluator(node).run(None, given)
    return np.asarray(values)
