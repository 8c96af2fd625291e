"""Whether the parts of a LoRA's layer fit together and fit the base; their shapes are enough to tell.

o outputs, i inputs, k l the kernel, r the rank of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal

from intaglio.errors import LoraRefused

__all__ = [
    "MAGNITUDES",
    "Method",
    "Part",
    "Shape",
    "Shapes",
    "check_shapes",
    "factored_rank",
    "magnitude_axis",
    "update_method",
]

Part = Literal[
    "down", "up", "mid", "magnitude", "dora_scale", "alpha",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
]  # fmt: skip
Method = Literal["LoRA", "LoCon", "LoHa", "LoKr"]
Shape = tuple[int, ...]
Shapes = Mapping[Part, Shape]

_RANKED: Final[tuple[Part, ...]] = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
"""Parts with r rows."""
_HADA: Final[tuple[Part, ...]] = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
MAGNITUDES: Final[tuple[Part, ...]] = ("magnitude", "dora_scale")
"""Of peft and of LyCORIS. They differ for kernels: peft's [1, n, 1, 1] is one value an output."""
_ALLOWED: Final[Mapping[Method, frozenset[Part]]] = {
    "LoRA": frozenset(("down", "up")),
    "LoCon": frozenset(("down", "up", "mid")),
    "LoHa": frozenset((*_HADA, "hada_t1", "hada_t2")),
    "LoKr": frozenset(("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")),
}


def check_shapes(lora: str, name: str, shapes: Shapes, *, shape: Shape) -> None:
    """Check that the parts of a layer are complete and make an update of `shape`; no values are needed.

    Raises:
        LoraRefused: naming the layer, what the file has and what the base has.
    """
    method = update_method(shapes)
    missing = [part for part in _needed(method, shapes) if part not in shapes]
    if missing:
        there = ", ".join(shapes) or "an alpha only"
        raise LoraRefused(lora, f"{name} has {there}, and lacks {', '.join(missing)}")
    allowed = _ALLOWED[method] & {*_needed(method, shapes), "mid", "lokr_t2"}
    if surplus := sorted(shapes.keys() - allowed - set(MAGNITUDES)):
        raise LoraRefused(lora, f"{name} is a {method}, and has {', '.join(surplus)} too")
    sizes = ", ".join(f"{part} {list(found)}" for part, found in shapes.items())
    try:
        fits = _fits(_update_shape(method, shapes), shape)
    except ValueError:
        fits = False
    if not fits:
        raise LoraRefused(lora, f"{name} has {sizes}; this base's layer is {list(shape)}")
    magnitudes = [part for part in MAGNITUDES if part in shapes]
    if len(magnitudes) > 1:
        raise LoraRefused(lora, f"{name} has two magnitudes: {', '.join(magnitudes)}")
    for part in magnitudes:
        if magnitude_axis(part, shapes[part], shape) is None:
            raise LoraRefused(
                lora,
                f"{name} has a {part} of {list(shapes[part])}; it should have one value an output"
                f" ({shape[0]}) or, as [1, {shape[1]}], one value an input",
            )


def update_method(shapes: Shapes) -> Method:
    """The method without its magnitude; what is neither LoHa nor LoKr should be a LoRA."""
    if "down" not in shapes and "up" not in shapes:
        if any(part.startswith("hada_") for part in shapes):
            return "LoHa"
        if any(part.startswith("lokr_") for part in shapes):
            return "LoKr"
    is_kernel = "mid" in shapes or len(shapes.get("down", ())) == 4
    return "LoCon" if is_kernel else "LoRA"


def _needed(method: Method, shapes: Shapes) -> tuple[Part, ...]:
    match method:
        case "LoHa":
            cores: tuple[Part, ...] = ("hada_t1", "hada_t2")
            return (*_HADA, *cores) if any(core in shapes for core in cores) else _HADA
        case "LoKr":
            left: tuple[Part, ...] = ("lokr_w1_a", "lokr_w1_b")
            right: tuple[Part, ...] = ("lokr_w2_a", "lokr_w2_b")
            if shapes.keys().isdisjoint(left):
                left = ("lokr_w1",)
            if shapes.keys().isdisjoint((*right, "lokr_t2")):
                right = ("lokr_w2",)
            return (*left, *right)
        case _:
            return ("down", "up")


def factored_rank(shapes: Shapes) -> int | None:
    """r; None for a LoKr that is not factored."""
    for part in _RANKED:
        if part in shapes:
            return shapes[part][0]
    return None


def _update_shape(method: Method, shapes: Shapes) -> Shape:
    """Shape of `Layer.update()`; ValueError where the parts do not fit each other."""
    factors = [found for part, found in shapes.items() if part not in MAGNITUDES]
    if any(len(found) not in (2, 4) or 0 in found for found in factors):
        raise ValueError("factors are matrices or kernels, and never empty")
    match method:
        case "LoHa":
            first = _product_shape(shapes["hada_w1_a"], shapes["hada_w1_b"], shapes.get("hada_t1"))
            second = _product_shape(shapes["hada_w2_a"], shapes["hada_w2_b"], shapes.get("hada_t2"))
            if first != second:
                raise ValueError("the factors differ")
            return first
        case "LoKr":
            left = shapes.get("lokr_w1") or _product_shape(shapes["lokr_w1_a"], shapes["lokr_w1_b"])
            right = shapes.get("lokr_w2") or _product_shape(
                shapes["lokr_w2_a"], shapes["lokr_w2_b"], shapes.get("lokr_t2")
            )
            if len(left) != 2:
                raise ValueError("the first factor is a matrix")
            return (left[0] * right[0], left[1] * right[1], *right[2:])
        case _:
            if "mid" in shapes:
                up, down = _matrix_shape(shapes["up"]), _matrix_shape(shapes["down"])
                return _product_shape((up[1], up[0]), down, shapes["mid"])
            return _product_shape(_matrix_shape(shapes["up"]), shapes["down"])


def _product_shape(first: Shape, second: Shape, core: Shape | None = None) -> Shape:
    """Shape of [o, r] times [r, i] or [r, i, k, l]; with a core [r, q, k, l], of [r, o] and [q, i]."""
    if len(first) != 2:
        raise ValueError("the first factor is a matrix")
    if core is not None:
        if len(second) != 2 or len(core) != 4 or core[:2] != (first[0], second[0]):
            raise ValueError("ranks differ")
        return (first[1], second[1], *core[2:])
    if first[1] != second[0]:
        raise ValueError("ranks differ")
    return (first[0], *second[1:])


def _matrix_shape(shape: Shape) -> Shape:
    """Of a 1x1 kernel, its matrix's."""
    if any(size != 1 for size in shape[2:]):
        raise ValueError("a kernel stands where a matrix should")
    return shape[:2]


def _fits(made: Shape, shape: Shape) -> bool:
    """Whether an update of shape `made` is one of a layer of `shape`: 1x1 kernels are written as matrices and
    matrices as 1x1 kernels, and the update of a kernel as a matrix [o, i k l].
    """
    as_matrix = (shape[0], math.prod(shape[1:]))
    return made in (shape, (*shape, 1, 1), as_matrix)


def magnitude_axis(part: Part, found: Shape, shape: Shape) -> Literal[0, 1] | None:
    """The axis of the layer that the magnitude has a value for each index of; None where it fits neither."""
    outputs, inputs = shape[:2]
    if len(found) >= 1 and found[0] == outputs and all(size == 1 for size in found[1:]):
        return 0
    if len(found) < 2 or found[0] != 1 or any(size != 1 for size in found[2:]):
        return None
    if part == "magnitude" and len(found) == 4:  # peft writes the outputs of a kernel as [1, o, 1, 1]
        return 0 if found[1] == outputs else None
    return 1 if found[1] == inputs else None
