"""What a LoRA does to the weights of one layer: pure functions of float32 arrays.

A layer has weights W [o, i] or [o, i, k, l]: o outputs, i inputs, k l the kernel; r is the rank. At weight w,
with s = alpha / r (1 without an alpha), W becomes:
    LoRA    W + w s B A                               arXiv 2106.09685
    LoCon   the same of kernels, also with a core     arXiv 2309.14859
    LoHa    W + w s (A1 B1) * (A2 B2)                 arXiv 2108.06098
    LoKr    W + w s kron(C, D)                        arXiv 2212.10650
    DoRA    m V / |V|, V is one of the sums above     arXiv 2402.09353
DoRA's norm |V| is that of each output (peft, and LyCORIS with `wd_on_output`) or of each input (LyCORIS
without). The shape of m says which. Several LoRAs add up their changes, and each change is computed from the
pristine W: the sum does not depend on the order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import LoraRefused

__all__ = ["Layer", "Part", "Shape", "check_shapes", "merged"]

Part = Literal[
    "down", "up", "mid", "magnitude", "dora_scale", "alpha",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
]  # fmt: skip
Method = Literal["LoRA", "LoCon", "LoHa", "LoKr"]
Floats = NDArray[np.float32]
Shape = tuple[int, ...]
Shapes = Mapping[Part, Shape]

_RANKED: Final[tuple[Part, ...]] = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
"""Parts with r rows."""
_HADA: Final[tuple[Part, ...]] = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_MAGNITUDES: Final[tuple[Part, ...]] = ("magnitude", "dora_scale")
"""Of peft and of LyCORIS. They differ for kernels: peft's [1, n, 1, 1] is one value an output."""
_ALLOWED: Final[Mapping[Method, frozenset[Part]]] = {
    "LoRA": frozenset(("down", "up")),
    "LoCon": frozenset(("down", "up", "mid")),
    "LoHa": frozenset((*_HADA, "hada_t1", "hada_t2")),
    "LoKr": frozenset(("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")),
}


@dataclass(frozen=True)
class Layer:
    """The parts of one layer as the file has them, in float32."""

    parts: Mapping[Part, Floats]
    alpha: float | None = None
    scale: float | None = None
    """alpha / r as peft's configuration in the file says it; it counts where the file has no alpha."""

    @property
    def method(self) -> str:
        """`LoRA`, `LoCon`, `DoRA`, `LoHa`, `LoKr`, `LoHa with DoRA` or `LoKr with DoRA`."""
        update = _update_method(self._shapes)
        if not self.is_dora:
            return update
        return f"{update} with DoRA" if update in ("LoHa", "LoKr") else "DoRA"

    @property
    def is_dora(self) -> bool:
        """Whether the change depends on the weights of the base."""
        return any(part in self.parts for part in _MAGNITUDES)

    @property
    def rank(self) -> int:
        """r; the smallest side of a LoKr that is not factored."""
        return _factored_rank(self._shapes) or min(self.parts["lokr_w2"].shape)

    @property
    def strength(self) -> float:
        """s, the factor of the update at weight 1."""
        rank = _factored_rank(self._shapes)
        if self.alpha is None:
            return 1.0 if self.scale is None else self.scale
        # LyCORIS writes an alpha for a LoKr that is not factored, and does not use it.
        return 1.0 if rank is None else self.alpha / rank

    @property
    def factors(self) -> tuple[Floats, Floats] | None:
        """(B [o, r], A [r, i]) of a plain LoRA of a matrix, whose change needs no other array. None for all
        others.
        """
        plain = self.parts.keys() == {"down", "up"}
        if not plain or self.parts["down"].ndim != 2 or self.parts["up"].ndim != 2:
            return None
        return self.parts["up"], self.parts["down"]

    @cached_property
    def reach(self) -> float:
        """An upper bound of every value of B A (Cauchy and Schwarz), for a plain LoRA of a matrix."""
        up, down = self.parts["up"], self.parts["down"]
        rows = np.einsum("or,or->o", up, up)
        columns = np.einsum("ri,ri->i", down, down)
        return math.sqrt(float(rows.max()) * float(columns.max()))

    @property
    def _shapes(self) -> Shapes:
        return {part: values.shape for part, values in self.parts.items()}

    def update(self) -> Floats:
        """The update that s multiplies: [o, i] or [o, i, k, l], and [o, i k l] where the factors are matrices
        of a kernel.
        """
        parts = self.parts
        match _update_method(self._shapes):
            case "LoHa":
                first = _hada_product(parts["hada_w1_a"], parts["hada_w1_b"], parts.get("hada_t1"))
                second = _hada_product(parts["hada_w2_a"], parts["hada_w2_b"], parts.get("hada_t2"))
                return first * second
            case "LoKr":
                left = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
                right = self._second_kronecker_factor()
                made: Floats = np.kron(left.reshape(*left.shape, *(1,) * (right.ndim - 2)), right)
                return made
            case _:
                return self._low_rank()

    def _low_rank(self) -> Floats:
        down, up = self.parts["down"], self.parts["up"]
        if "mid" in self.parts:
            return _with_core(_matrix(up).T, _matrix(down), self.parts["mid"])
        return (_matrix(up) @ down.reshape(len(down), -1)).reshape(len(up), *down.shape[1:])

    def _second_kronecker_factor(self) -> Floats:
        parts = self.parts
        if "lokr_w2" in parts:
            return parts["lokr_w2"]
        first, second = parts["lokr_w2_a"], parts["lokr_w2_b"]
        if "lokr_t2" in parts:
            return _with_core(first, second, parts["lokr_t2"])
        return (first @ second.reshape(len(second), -1)).reshape(len(first), *second.shape[1:])

    def change(self, weights: Floats, weight: float) -> Floats:
        """What is added to the pristine `weights` of the layer, at `weight`; a new array of their shape.

        A value that does not fit into float32 becomes infinite or NaN; callers check their sums.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            added: Floats = np.float32(weight * self.strength) * self.update().reshape(weights.shape)
            for part in _MAGNITUDES:
                if part in self.parts:
                    return _renormed(part, self.parts[part], weights + added) - weights
        return added

    def applied(self, weights: Floats, weight: float) -> Floats:
        """`weights` of the layer with this LoRA at `weight`; a new array."""
        return merged(weights, [(self, weight)])

    def check(self, lora: str, name: str, *, shape: Shape) -> None:
        """As `check_shapes`, and for the alpha too."""
        check_shapes(lora, name, self._shapes, shape=shape)
        if self.alpha is not None and not math.isfinite(self.alpha):
            raise LoraRefused(lora, f"{name}.alpha is {self.alpha}; it should be a finite number")


def merged(weights: Floats, layers: Iterable[tuple[Layer, float]]) -> Floats:
    """`weights` of a layer with each LoRA of `layers` at its weight; a new array.

    Every change is computed from `weights` as they are given, also that of a DoRA.
    """
    found = weights.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        for layer, weight in layers:
            found += layer.change(weights, weight)
    return found


def check_shapes(lora: str, name: str, shapes: Shapes, *, shape: Shape) -> None:
    """Check that the parts of a layer are complete and make an update of `shape`; no values are needed.

    Raises:
        LoraRefused: naming the layer, what the file has and what the base has.
    """
    method = _update_method(shapes)
    missing = [part for part in _needed(method, shapes) if part not in shapes]
    if missing:
        there = ", ".join(shapes) or "an alpha only"
        raise LoraRefused(lora, f"{name} has {there}, and lacks {', '.join(missing)}")
    if mixed := sorted(shapes.keys() - _ALLOWED[method] - set(_MAGNITUDES)):
        raise LoraRefused(lora, f"{name} has parts of two methods: {method}, and {', '.join(mixed)}")
    sizes = ", ".join(f"{part} {list(found)}" for part, found in shapes.items())
    try:
        fits = _fits(_update_shape(method, shapes), shape)
    except ValueError:
        fits = False
    if not fits:
        raise LoraRefused(lora, f"{name} has {sizes}; this base's layer is {list(shape)}")
    magnitudes = [part for part in _MAGNITUDES if part in shapes]
    if len(magnitudes) > 1:
        raise LoraRefused(lora, f"{name} has two magnitudes: {', '.join(magnitudes)}")
    for part in magnitudes:
        if _magnitude_axis(part, shapes[part], shape) is None:
            raise LoraRefused(
                lora,
                f"{name} has a {part} of {list(shapes[part])}; it should have one value an output"
                f" ({shape[0]}) or, as [1, {shape[1]}], one value an input",
            )


def _update_method(shapes: Shapes) -> Method:
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
            factored: tuple[tuple[Part, Part, Part], ...] = (
                ("lokr_w1", "lokr_w1_a", "lokr_w1_b"),
                ("lokr_w2", "lokr_w2_a", "lokr_w2_b"),
            )
            needed: list[Part] = []
            for whole, first, second in factored:
                if first in shapes or second in shapes or (whole == "lokr_w2" and "lokr_t2" in shapes):
                    needed += [first, second]
                else:
                    needed.append(whole)
            return tuple(needed)
        case _:
            return ("down", "up")


def _factored_rank(shapes: Shapes) -> int | None:
    """r; None for a LoKr that is not factored."""
    for part in _RANKED:
        if part in shapes:
            return shapes[part][0]
    return None


# --- shapes ------------------------------------------------------------------------------------------


def _update_shape(method: Method, shapes: Shapes) -> Shape:
    """Shape of `Layer.update()`; ValueError where the parts do not fit each other."""
    if any(
        0 in found or len(found) not in (2, 4) for part, found in shapes.items() if part not in _MAGNITUDES
    ):
        raise ValueError("parts are matrices or kernels, and never empty")
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


def _magnitude_axis(part: Part, found: Shape, shape: Shape) -> Literal[0, 1] | None:
    """The axis of the layer that the magnitude has a value for each index of; None where it fits neither."""
    outputs, inputs = shape[:2]
    if len(found) >= 1 and found[0] == outputs and all(size == 1 for size in found[1:]):
        return 0
    if len(found) < 2 or found[0] != 1 or any(size != 1 for size in found[2:]):
        return None
    if part == "magnitude" and len(found) == 4:  # peft writes the outputs of a kernel as [1, o, 1, 1]
        return 0 if found[1] == outputs else None
    return 1 if found[1] == inputs else None


# --- values ------------------------------------------------------------------------------------------


def _matrix(values: Floats) -> Floats:
    """A 1x1 kernel as a matrix."""
    return values.reshape(values.shape[:2])


def _hada_product(first: Floats, second: Floats, core: Floats | None) -> Floats:
    if core is not None:
        return _with_core(first, second, core)
    return (first @ second.reshape(len(second), -1)).reshape(len(first), *second.shape[1:])


def _with_core(first: Floats, second: Floats, core: Floats) -> Floats:
    """[o, i, k, l] of [r, o], [q, i] and the core [r, q, k, l] (Tucker's decomposition)."""
    return cast(Floats, np.einsum("ro,qi,rqkl->oikl", first, second, core, optimize=True))


def _renormed(part: Part, magnitude: Floats, values: Floats) -> Floats:
    """`values` with the norms that `magnitude` says, of each output or of each input."""
    axis = _magnitude_axis(part, magnitude.shape, values.shape)
    if axis is None:
        raise ValueError(f"{part} {magnitude.shape} does not fit {values.shape}")
    others = tuple(other for other in range(values.ndim) if other != axis)
    norms = np.sqrt(np.square(values).sum(axis=others, keepdims=True))
    norms[np.isinf(norms)] = np.nan  # a square too large for float32 must not make the weights zero
    # What is zero has no direction, and stays zero.
    factors = np.divide(magnitude.reshape(norms.shape), norms, out=np.zeros_like(norms), where=norms != 0)
    return cast(Floats, factors * values)
