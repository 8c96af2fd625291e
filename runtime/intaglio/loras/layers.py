"""What a LoRA does to one layer's weights: pure functions of float32 arrays.

W [o, i] or [o, i, k, l] becomes, at strength w with s = alpha / r (1 without an alpha):
    LoRA, LoCon   W + w s B A               arXiv 2106.09685; LyCORIS arXiv 2309.14859 (convolutions, and with a core)
    DoRA          m (W + w s B A) / |W + w s B A|, norms over all but o     arXiv 2402.09353, as peft merges it
    LoHa          W + w s (A1 B1) * (A2 B2)                                 arXiv 2108.06098
    LoKr          W + w s kron(C, D)                                        arXiv 2212.10650; s is 1 where neither is factored
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import LoraRefused

__all__ = ["Layer", "Part"]

Part = Literal[
    "down", "up", "mid", "magnitude", "alpha",
    "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b",
]  # fmt: skip
Floats = NDArray[np.float32]
_RANKED: Final[tuple[Part, ...]] = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
"""Parts with r rows."""
_HADA: Final[tuple[Part, ...]] = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


@dataclass(frozen=True)
class Layer:
    """The parts of one layer as they are in the file, in float32."""

    parts: Mapping[Part, Floats]
    alpha: float | None = None
    scale: float | None = None
    """alpha / r as the file's own configuration says it; counts where there is no alpha."""

    @property
    def method(self) -> Literal["LoRA", "LoCon", "DoRA", "LoHa", "LoKr"]:
        """What the parts make up."""
        if "magnitude" in self.parts:
            return "DoRA"
        if "down" in self.parts or "up" in self.parts or not self.parts:
            return "LoCon" if self.parts.get("down", np.empty(0)).ndim == 4 else "LoRA"
        return "LoHa" if any(part in self.parts for part in _HADA) else "LoKr"

    @property
    def rank(self) -> int:
        """r; the smallest side of what is not factored."""
        for part in _RANKED:
            if part in self.parts:
                return int(self.parts[part].shape[0])
        return min(self.parts["lokr_w2"].shape) if "lokr_w2" in self.parts else 0

    @property
    def strength(self) -> float:
        """s, what the update is multiplied with at weight 1."""
        if self.method == "LoKr" and not any(part in self.parts for part in ("lokr_w1_b", "lokr_w2_b")):
            return 1.0
        if self.alpha is not None:
            return self.alpha / self.rank
        return 1.0 if self.scale is None else self.scale

    @property
    def factors(self) -> tuple[Floats, Floats] | None:
        """(B [o, r], A [r, i]) of a plain LoRA of a matrix, which needs no array of the layer's size; None
        for all others.
        """
        plain = set(self.parts) == {"down", "up"} and self.parts["down"].ndim == 2
        return (self.parts["up"], self.parts["down"]) if plain else None

    @cached_property
    def reach(self) -> float:
        """No value of B A is larger (Cauchy and Schwarz); of a plain LoRA of a matrix."""
        up, down = self.parts["up"], self.parts["down"]
        rows, columns = (
            np.einsum(spec, values, values) for spec, values in (("or,or->o", up), ("ri,ri->i", down))
        )
        return math.sqrt(float(rows.max()) * float(columns.max()))

    def update(self) -> Floats:
        """What is added to the layer at strength 1, as [o, i] or [o, i, k, l] (LoHa and LoKr of kernels: [o,
        i k l]).
        """
        parts = self.parts
        match self.method:
            case "LoHa":
                return (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
            case "LoKr":
                left, right = (_product(parts, name) for name in ("lokr_w1", "lokr_w2"))
                return np.kron(left.reshape(*left.shape, *(1,) * (right.ndim - 2)), right)
            case _:
                return self._low_rank()

    def _low_rank(self) -> Floats:
        down, up = self.parts["down"], self.parts["up"]
        if "mid" in self.parts:
            made: Floats = np.einsum(
                "om,mnkl,ni->oikl", _matrix(up), self.parts["mid"], _matrix(down), optimize=True
            )
            return made
        return (_matrix(up) @ down.reshape(len(down), -1)).reshape(len(up), *down.shape[1:])

    def applied(self, weights: Floats, weight: float) -> Floats:
        """`weights` of the layer with this at `weight`; a new array."""
        changed: Floats = weights + np.float32(weight * self.strength) * self.update().reshape(weights.shape)
        if "magnitude" not in self.parts:
            return changed
        norms = np.sqrt(np.square(changed).sum(axis=tuple(range(1, changed.ndim)), keepdims=True))
        scaled: Floats = self.parts["magnitude"].reshape(-1, *(1,) * (changed.ndim - 1)) / norms * changed
        return scaled

    def check(self, lora: str, name: str, *, shape: tuple[int, ...]) -> None:
        """Whether the parts are all there and make an update of `shape`.

        Raises:
            LoraRefused: naming the layer, what it has and what the base has.
        """
        missing = [part for part in self._needed() if part not in self.parts]
        if missing:
            raise LoraRefused(
                lora, f"{name} has {', '.join(self.parts) or 'an alpha only'}, and lacks {', '.join(missing)}"
            )
        if self.alpha is not None and not math.isfinite(self.alpha):
            raise LoraRefused(lora, f"{name}.alpha is {self.alpha}")
        try:
            made = _update_shape(self)
        except ValueError:
            made = None
        if (
            made is None
            or math.prod(made) != math.prod(shape)
            or made[0] != shape[0]
            or (len(made) == len(shape) and made != shape)
        ):
            sizes = ", ".join(f"{part} {list(values.shape)}" for part, values in self.parts.items())
            raise LoraRefused(lora, f"{name} has {sizes}; this base's layer is {list(shape)}")
        magnitude: Any = self.parts.get("magnitude")
        if magnitude is not None and magnitude.size != shape[0]:
            raise LoraRefused(
                lora, f"{name} has a magnitude of {list(magnitude.shape)}; one a row, {shape[0]}, can be used"
            )

    def _needed(self) -> tuple[Part, ...]:
        match self.method:
            case "LoHa":
                return _HADA
            case "LoKr":
                ones: tuple[Part, ...] = (
                    ("lokr_w1_a", "lokr_w1_b")
                    if "lokr_w1_a" in self.parts or "lokr_w1_b" in self.parts
                    else ("lokr_w1",)
                )
                twos: tuple[Part, ...] = (
                    ("lokr_w2_a", "lokr_w2_b")
                    if "lokr_w2_a" in self.parts or "lokr_w2_b" in self.parts
                    else ("lokr_w2",)
                )
                return (*ones, *twos)
            case _:
                return ("down", "up")


def _matrix(values: Floats) -> Floats:
    """A 1x1 kernel as a matrix."""
    return values.reshape(values.shape[:2])


def _product(parts: Mapping[Part, Floats], name: Literal["lokr_w1", "lokr_w2"]) -> Floats:
    if name in parts:
        return parts[name]
    first, second = parts[f"{name}_a"], parts[f"{name}_b"]  # type: ignore[index]
    return (first @ second.reshape(len(second), -1)).reshape(len(first), *second.shape[1:])


def _update_shape(layer: Layer) -> tuple[int, ...]:
    """Shape of `update()` without the arithmetic: the parts are replaced by zeros that take no memory.
    ValueError where they do not fit.
    """
    hollow = {part: np.broadcast_to(np.float32(0), values.shape) for part, values in layer.parts.items()}
    match layer.method:
        case "LoHa":
            first, second = ((hollow[a].shape, hollow[b].shape) for a, b in (_HADA[:2], _HADA[2:]))
            if first[0][1] != first[1][0] or second[0][1] != second[1][0]:
                raise ValueError("ranks differ")
            return tuple(np.broadcast_shapes((first[0][0], first[1][1]), (second[0][0], second[1][1])))
        case "LoKr":
            return Layer(hollow).update().shape
        case _:
            down, up = hollow["down"].shape, hollow["up"].shape
            inner = hollow["mid"].shape if "mid" in hollow else (down[0], down[0], *down[2:])
            if up[1] != inner[0] or down[0] != inner[1] or any(size != 1 for size in up[2:]):
                raise ValueError("ranks differ")
            return (up[0], down[1], *inner[2:])
