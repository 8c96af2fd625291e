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
from typing import cast

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import LoraRefused
from intaglio.loras.layer_shapes import (
    MAGNITUDES,
    Part,
    Shape,
    Shapes,
    check_shapes,
    factored_rank,
    magnitude_axis,
    update_method,
)

__all__ = ["Layer", "merged"]

Floats = NDArray[np.float32]


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
        update = update_method(self._shapes)
        if not self.is_dora:
            return update
        return f"{update} with DoRA" if update in ("LoHa", "LoKr") else "DoRA"

    @property
    def is_dora(self) -> bool:
        """Whether the change depends on the weights of the base."""
        return any(part in self.parts for part in MAGNITUDES)

    @property
    def rank(self) -> int:
        """r; the smallest side of a LoKr that is not factored."""
        return factored_rank(self._shapes) or min(self.parts["lokr_w2"].shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its values in memory."""
        return sum(values.nbytes for values in self.parts.values())

    @property
    def strength(self) -> float:
        """s, the factor of the update at weight 1."""
        rank = factored_rank(self._shapes)
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
        match update_method(self._shapes):
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
            for part in MAGNITUDES:
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
    axis = magnitude_axis(part, magnitude.shape, values.shape)
    if axis is None:
        raise ValueError(f"{part} {magnitude.shape} does not fit {values.shape}")
    others = tuple(other for other in range(values.ndim) if other != axis)
    norms = np.sqrt(np.square(values).sum(axis=others, keepdims=True))
    norms[np.isinf(norms)] = np.nan  # a square too large for float32 must not make the weights zero
    # What is zero has no direction, and stays zero.
    factors = np.divide(magnitude.reshape(norms.shape), norms, out=np.zeros_like(norms), where=norms != 0)
    return cast(Floats, factors * values)
