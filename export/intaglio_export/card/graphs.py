"""Small graphs with SDXL's shapes, one for each kind of work, to measure a card or a processor with.

Every graph is a chain of equal operators, so that what an engine pays per call does not count. Shapes are
those of one image of 1024x1024 with guidance (two rows).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from intaglio.contract.tensors import NetworkSpec, Precision, TensorSpec

__all__ = ["FP8", "KINDS", "CardGraph", "Kind", "card_graphs", "fp8_graph", "one_product"]

Kind = Literal["product", "convolution", "attention"]
KINDS: Final[tuple[Kind, ...]] = ("product", "convolution", "attention")
_OPSET: Final = 19
"""The first with float8 in QuantizeLinear."""
_SUM_LENGTH: Final = 5120
"""Terms of each sum in `products`: the longest of SDXL's products."""
FP8: Final = "products in fp8"


@dataclass(frozen=True, slots=True)
class CardGraph:
    """One small graph with an input `x` and an output `y`."""

    name: str
    kind: Kind
    operations: float
    """Floating-point operations of one pass."""
    shape: tuple[int, ...]
    """Of the input."""
    output: tuple[int, ...]
    make: Callable[[], list[Any]]
    """Nodes and initializers in float16, in the order in which the graph takes them."""
    precision: Precision = "fp16"
    """What the graph computes in."""

    @property
    def network(self) -> NetworkSpec:
        """The graph's tensors, as the engines' interface wants them."""
        tensors = (TensorSpec("x", self.shape, "compute"), TensorSpec("y", self.output, "compute"))
        return NetworkSpec(self.name, tensors[:1], tensors[1:])

    def model(self) -> onnx.ModelProto:
        """The graph as ONNX."""
        made = self.make()
        nodes = [part for part in made if isinstance(part, onnx.NodeProto)]
        weights = [part for part in made if isinstance(part, onnx.TensorProto)]
        kind = TensorProto.FLOAT16
        if self.precision == "fp32":
            kind = TensorProto.FLOAT
            weights = [_in_float32(weight) for weight in weights]
        inputs = [helper.make_tensor_value_info("x", kind, self.shape)]
        outputs = [helper.make_tensor_value_info("y", kind, self.output)]
        graph = helper.make_graph(nodes, "card", inputs, outputs, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)


def _weight(name: str, *shape: int, fan_in: int) -> onnx.TensorProto:
    """Normal values, scaled so that a chain neither grows nor vanishes. The seed is the name's length."""
    generator = np.random.default_rng(len(name))
    values = generator.standard_normal(shape, dtype=np.float32) / np.sqrt(fan_in)
    return numpy_helper.from_array(values.astype(np.float16), name)


def _in_float32(weight: onnx.TensorProto) -> onnx.TensorProto:
    if weight.data_type != TensorProto.FLOAT16:
        return weight
    return numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), weight.name)


def _products() -> list[Any]:
    """The two products of a feed-forward layer, three times: 2048 tokens, 1280 and 5120 channels."""
    made: list[Any] = [_weight("up", 1280, _SUM_LENGTH, fan_in=1280)]
    made.append(_weight("narrow", _SUM_LENGTH, 1280, fan_in=_SUM_LENGTH))
    value = "x"
    for index in range(3):
        target = "y" if index == 2 else f"v{index}"
        made.append(helper.make_node("MatMul", [value, "up"], [f"wide{index}"]))
        made.append(helper.make_node("MatMul", [f"wide{index}", "narrow"], [target]))
        value = target
    return made


def _one_product() -> list[Any]:
    """The product with the longest sums alone: only so its result can be compared with float64."""
    weight = _weight("narrow", _SUM_LENGTH, 1280, fan_in=_SUM_LENGTH)
    return [weight, helper.make_node("MatMul", ["x", "narrow"], ["y"])]


def _fp8_products() -> list[Any]:
    """The same products with inputs and weights in fp8, with one scale for each tensor."""
    scale = numpy_helper.from_array(np.asarray(0.02, np.float16), "scale")
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True)
    made: list[Any] = [scale, zero]
    for part in _products():
        if not isinstance(part, onnx.NodeProto):
            made.append(part)
            continue
        value, weight = part.input
        quantized = []
        for name in (value, weight):
            tag = f"{part.output[0]}_{name}"
            made.append(helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{tag}_q"]))
            made.append(helper.make_node("DequantizeLinear", [f"{tag}_q", "scale", "zero"], [f"{tag}_d"]))
            quantized.append(f"{tag}_d")
        made.append(helper.make_node("MatMul", quantized, list(part.output)))
    return made


def _convolutions() -> list[Any]:
    """Three 3x3 convolutions of 640 channels at 64x64 latents."""
    made: list[Any] = []
    value = "x"
    for index in range(3):
        target = "y" if index == 2 else f"v{index}"
        made.append(_weight(f"kernel{'_' * index}", 640, 640, 3, 3, fan_in=640 * 9))
        node = helper.make_node("Conv", [value, made[-1].name], [target], kernel_shape=[3, 3], pads=[1] * 4)
        made.append(node)
        value = target
    return made


def _attention(tokens: int) -> list[Any]:
    """Three self-attentions of two rows of `tokens`, 10 heads of 64. Queries, keys and values are equal."""
    shape = numpy_helper.from_array(np.asarray([2, tokens, 10, 64], np.int64), "heads")
    flat = numpy_helper.from_array(np.asarray([2, tokens, 640], np.int64), "flat")
    factor = numpy_helper.from_array(np.asarray(64**-0.5, np.float16), "factor")
    made: list[Any] = [shape, flat, factor]
    value = "x"
    for index in range(3):
        target = "y" if index == 2 else f"v{index}"
        nodes: list[tuple[str, list[str], str, dict[str, Any]]] = [
            ("Reshape", [value, "heads"], "split", {}),
            ("Transpose", ["split"], "queries", {"perm": [0, 2, 1, 3]}),
            ("Transpose", ["split"], "keys", {"perm": [0, 2, 3, 1]}),
            ("MatMul", ["queries", "keys"], "scores", {}),
            ("Mul", ["scores", "factor"], "scaled", {}),
            ("Softmax", ["scaled"], "shares", {"axis": -1}),
            ("MatMul", ["shares", "queries"], "mixed", {}),
            ("Transpose", ["mixed"], "joined", {"perm": [0, 2, 1, 3]}),
            ("Reshape", ["joined", "flat"], target, {}),
        ]
        own = {result for _, _, result, _ in nodes} - {target}
        for operator, inputs, result, attributes in nodes:
            names = [f"{name}{index}" if name in own else name for name in inputs]
            output = f"{result}{index}" if result in own else result
            made.append(helper.make_node(operator, names, [output], **attributes))
        value = target
    return made


def card_graphs(divisor: int = 1, *, precision: Precision = "fp16") -> tuple[CardGraph, ...]:
    """One graph of each kind. `divisor` makes fewer tokens and smaller maps, for what is no card."""
    rows = 2048 // divisor
    tokens = 4096 // divisor
    side = 64 // divisor
    products = 3 * 2 * 2.0 * rows * 1280 * _SUM_LENGTH
    convolutions = 3 * 2.0 * 2 * side * side * 640 * 640 * 9
    attention = 3 * 2 * 2.0 * 2 * 10 * tokens * tokens * 64
    flat = (rows, 1280)
    maps = (2, 640, side, side)
    sequence = (2, tokens, 640)
    return (
        CardGraph("products", "product", products, flat, flat, _products, precision),
        CardGraph("convolutions", "convolution", convolutions, maps, maps, _convolutions, precision),
        CardGraph(
            "attention", "attention", attention, sequence, sequence, lambda: _attention(tokens), precision
        ),
    )


def fp8_graph(divisor: int = 1) -> CardGraph:
    """The products in fp8."""
    plain = card_graphs(divisor)[0]
    return CardGraph(FP8, plain.kind, plain.operations, plain.shape, plain.output, _fp8_products)


def one_product(divisor: int = 1) -> CardGraph:
    """What is compared with float64."""
    rows = 2048 // divisor
    operations = 2.0 * rows * 1280 * _SUM_LENGTH
    return CardGraph("one product", "product", operations, (rows, _SUM_LENGTH), (rows, 1280), _one_product)
