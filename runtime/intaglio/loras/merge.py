"""New values of matrices, computed on the device that runs the engines.

The network `lora_merge` of the tensor table adds LoRAs to pristine weights in float32 and casts once:
    [i, o] weight + sum over r of strengths[r] left[r, i] right[r, o]
Pristine weights lie in host memory that is uploaded from fastest. Each tensor of the network has one buffer,
as large as the largest matrix and rank so far; smaller ones use its beginning. That is enough, since passes
follow one another on the backend's stream. The memory of new values is allocated and freed together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.sdxl import LARGEST_RANK, LARGEST_SIDE
from intaglio.engines.interface import Array, Backend, DeviceArray, Engine

__all__ = ["LoraMerge", "Recipe", "Term", "groups", "largest_value"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Term:
    """What one LoRA adds to a matrix [i, o]."""

    left: Floats
    """[r, i]."""
    right: Floats
    """[r, o]."""
    strength: float
    reach: float
    """Upper bound of what it adds at strength 1."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The next values of a weight: `values` plus `terms`."""

    values: Array
    """Pristine values, in memory of `Backend.hold` where there is a merge, or new values that the host made.
    Nobody may write to them.
    """
    terms: tuple[Term, ...] = ()


def largest_value(values: Array) -> float:
    """Largest magnitude in `values`; infinite where one is not finite."""
    if values.dtype == np.float16:
        # As integers, magnitudes have the same order; arithmetic in half precision is slow on a CPU.
        return float((values.view(np.uint16) & np.uint16(0x7FFF)).max(initial=0).view(np.float16))
    found = float(np.abs(values).max(initial=0))
    return found if np.isfinite(found) else float("inf")


def groups(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """The names in order, in groups whose `sizes` add up to at most `limit`. A name of a larger size is a
    group of its own.
    """
    taken: list[str] = []
    filled = 0
    for name, size in sizes.items():
        if taken and filled + size > limit:
            yield taken
            taken, filled = [], 0
        taken.append(name)
        filled += size
    if taken:
        yield taken


class LoraMerge:
    """The network `lora_merge` in `engine`, with its buffers; one thread uses it."""

    def __init__(self, backend: Backend, engine: Engine, *, staging_bytes: int) -> None:
        """`staging_bytes` is the most memory of new values at one time."""
        self.backend = backend
        self.staging_bytes = staging_bytes
        self._engine = engine
        self._buffers: dict[str, DeviceArray] = {}
        """By tensor. Requests choose the ranks, so a buffer for every shape would take ever more memory."""

    @property
    def dtype(self) -> str:
        """numpy name of the dtype of weights."""
        return self._engine.network.tensor("weight").numpy_dtype(self._engine.precision)

    def warm_up(self) -> None:
        """Set up everything that the first merge would wait for."""
        ones = np.ones((1, 8), np.float32)
        self.stage({"": Recipe(np.zeros((8, 8), self.dtype), (Term(ones, ones, strength=1.0, reach=1.0),))})
        self.backend.synchronize()

    def admits(self, shape: tuple[int, ...], *, largest: float, terms: Sequence[Term]) -> bool:
        """Whether the merge can add `terms` to a weight of `shape` with values up to `largest`: the engine is
        built for the size, and the result is sure to stay finite.
        """
        most = largest + sum(abs(term.strength) * term.reach for term in terms)
        rank = sum(len(term.left) for term in terms)
        return (
            len(shape) == 2
            and max(shape) <= LARGEST_SIDE
            and 0 < rank <= LARGEST_RANK
            and most < 0.99 * float(np.finfo(self.dtype).max)
        )

    def stage(self, recipes: Mapping[str, Recipe]) -> dict[str, DeviceArray]:
        """The new values on the device; they are enqueued, not waited for."""
        shapes = [recipe.values.shape for recipe in recipes.values()]
        staged = self.backend.allocate_together(shapes, self.dtype)
        for target, recipe in zip(staged, recipes.values(), strict=True):
            if recipe.terms:
                self._merge(target, recipe)
            else:
                self.backend.upload(target, recipe.values)
        return dict(zip(recipes, staged, strict=True))

    def _merge(self, target: DeviceArray, recipe: Recipe) -> None:
        upload, network = self.backend.upload, self._engine.network
        rank = sum(len(term.left) for term in recipe.terms)
        sizes = {"i": recipe.values.shape[0], "o": recipe.values.shape[1], "r": rank}
        # The result has a buffer of its own: an execution context keeps the addresses of its last pass, and
        # the memory of `target` is freed after the refit.
        arrays = {spec.name: self._buffer(spec.name, spec.shape(sizes)) for spec in network.tensors}
        upload(arrays["weight"], recipe.values)
        strengths = [np.full(len(term.left), term.strength, np.float32) for term in recipe.terms]
        upload(arrays["strengths"], np.concatenate(strengths))
        row = 0
        for term in recipe.terms:
            end = row + len(term.left)
            upload(arrays["left"].rows(row, end), term.left)
            upload(arrays["right"].rows(row, end), term.right)
            row = end
        self._engine.bind(sizes, arrays).run()
        self.backend.copy(target, arrays["merged"])

    def _buffer(self, name: str, shape: tuple[int, ...]) -> DeviceArray:
        """The buffer of the tensor `name`, used as an array of `shape`; its content is undefined."""
        size = math.prod(shape)
        held = self._buffers.get(name)
        if held is None or math.prod(held.shape) < size:
            # The old buffer goes first: both together would be the peak of memory.
            held = None
            self._buffers.pop(name, None)
            dtype = self._engine.network.tensor(name).numpy_dtype(self._engine.precision)
            held = self.backend.allocate((size,), dtype)
            self._buffers[name] = held
        return held.reshaped(shape)
