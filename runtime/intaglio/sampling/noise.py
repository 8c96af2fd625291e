"""torch's CPU `randn` in numpy.

A seed gives the image that it gives in diffusers, and no serving process needs torch.

torch draws normals in two ways, and both share one MT19937 stream of 32-bit words:

* 16 elements or more: one word an element gives a float32 uniform (its low 24 bits). Box-Muller then turns
  each block of 16 uniforms into 16 normals: the first half gives 8 radii, the second half 8 angles, and the 8
  cosines come before the 8 sines. Where the size is no multiple of 16, the last 16 elements are drawn again.
* fewer than 16: float64 Box-Muller, one pair at a time from two 64-bit draws. The second normal of a pair is
  kept for the next small draw, whatever large draws come between.

Only float32 is supported. A pipeline in half precision asks torch for half-precision normals. torch 2.13
gives these ones, rounded; torch 2.11 gives others, made of 11 bits a word. There a seed starts from another
picture, unless the pipeline gets `latents` drawn in float32.

Source: pytorch, aten/src/ATen/native/cpu/DistributionTemplates.h (`normal_fill`) and
aten/src/ATen/core/DistributionsHelper.h (`normal_distribution`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["SEED_RANGE", "TorchCpuGenerator", "diffusers_noise"]

SEED_RANGE: Final = (-(2**63), 2**64 - 1)
"""Smallest and largest seed that `torch.Generator.manual_seed` takes."""

BLOCK: Final = 16
HALF: Final = BLOCK // 2


class TorchCpuGenerator:
    """`torch.Generator("cpu").manual_seed(seed)` for float32 normals.

    Successive `randn` calls equal successive `torch.randn(shape, generator=g)` to 1e-6, for any sequence of
    shapes.

    Raises:
        ValueError: the seed is outside `SEED_RANGE`.
    """

    def __init__(self, seed: int) -> None:
        low, high = SEED_RANGE
        if not low <= seed <= high:
            raise ValueError(f"seed {seed} is out of range; it must be {low} to {high}")
        # RandomState seeds MT19937 with init_genrand of a 32-bit number, as torch does with the low half of
        # its seed.
        self._words = np.random.RandomState(seed & 0xFFFFFFFF)
        self._kept: float | None = None

    def randn(self, shape: int | Sequence[int]) -> NDArray[np.float32]:
        """Standard normals [shape], float32; the state moves on as torch's would."""
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        size = math.prod(shape)
        values = self._large(size) if size >= BLOCK else self._small(size)
        return values.reshape(shape)

    def _large(self, size: int) -> NDArray[np.float32]:
        uniforms = self._uniforms(size)
        whole = size - size % BLOCK
        values = np.concatenate([_normals(uniforms[:whole]), uniforms[whole:]])
        if whole < size:
            values[-BLOCK:] = _normals(self._uniforms(BLOCK))
        return values

    def _small(self, size: int) -> NDArray[np.float32]:
        return np.array([self._next_small() for _ in range(size)], dtype=np.float32)

    def _next_small(self) -> float:
        if self._kept is not None:
            value, self._kept = self._kept, None
            return value
        high_1, low_1, high_2, low_2 = (int(word) for word in self._draw(4))
        angle = 2 * math.pi * _uniform_53(high_1, low_1)
        radius = math.sqrt(-2 * math.log1p(-_uniform_53(high_2, low_2)))
        self._kept = radius * math.sin(angle)
        return radius * math.cos(angle)

    def _uniforms(self, size: int) -> NDArray[np.float32]:
        """[size] float32 in [0, 1): the low 24 bits of a word, so every value is exact."""
        return (self._draw(size) & np.uint32(2**24 - 1)).astype(np.float32) * np.float32(2**-24)

    def _draw(self, count: int) -> NDArray[np.uint32]:
        return self._words.randint(0, 2**32, size=count, dtype=np.uint32)


def diffusers_noise(seed: int, shape: int | Sequence[int]) -> NDArray[np.float32]:
    """The noise that a diffusers pipeline starts from, before `init_noise_sigma`; float32.

    diffusers draws it as `randn_tensor(shape, generator=torch.Generator("cpu").manual_seed(seed))`.
    `shape` is [1, 4, H/8, W/8] for one image.
    """
    return TorchCpuGenerator(seed).randn(shape)


def _normals(uniforms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Box-Muller on blocks of 16: [16 m] uniforms -> [16 m] normals."""
    blocks = uniforms.reshape(-1, BLOCK)
    # float64 inside: numpy's float32 log, cos and sin differ in the last bit from one CPU to the next.
    radius = np.sqrt(-2 * np.log(1 - blocks[:, :HALF].astype(np.float64)))
    angle = (np.float32(2 * math.pi) * blocks[:, HALF:]).astype(np.float64)
    normals = np.empty_like(blocks)
    normals[:, :HALF] = radius * np.cos(angle)
    normals[:, HALF:] = radius * np.sin(angle)
    return normals.reshape(-1)


def _uniform_53(high: int, low: int) -> float:
    """[0, 1) from the low 53 bits of a 64-bit draw, which is two words, high one first."""
    return ((high << 32 | low) & (2**53 - 1)) * 2.0**-53
