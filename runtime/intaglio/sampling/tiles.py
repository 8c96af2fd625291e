"""A picture that the VAE does not decode at once: which tiles cover it, and one picture of them.

The VAE's activations are the largest of all networks' and grow with the pixels decoded at once. Tiles overlap
by about a quarter and are blended there. A tile does not know what the rest of the picture has
(normalisations and the middle block's attention see all of it), so its colours differ from those of the
whole, the more the smaller it is: tiles are for sizes that do not fit otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.architecture import Architecture
from intaglio.contract.config import Profiles

__all__ = ["Tiling", "blend_tiles", "decoded_sizes", "latent_tiling", "tiling_of"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tiling:
    """Tiles of one size, row by row; all in the units of what was covered (latents or pixels)."""

    width: int
    height: int
    """Of a tile."""
    lefts: tuple[int, ...]
    tops: tuple[int, ...]

    @property
    def places(self) -> Iterator[tuple[int, int]]:
        """(top, left) of each tile."""
        return ((top, left) for top in self.tops for left in self.lefts)

    def scaled(self, factor: int) -> Tiling:
        """The same of a picture `factor` times as wide and as high."""
        lefts, tops = (tuple(factor * start for start in starts) for starts in (self.lefts, self.tops))
        return Tiling(factor * self.width, factor * self.height, lefts, tops)


def tiling_of(width: int, height: int, *, most: int) -> Tiling:
    """Few tiles, as square as may be, of at most `most` places that cover `width` x `height`; one where that
    is not more.
    """
    columns = rows = 1
    while True:
        tile_width, tile_height = _tile_side(width, columns), _tile_side(height, rows)
        if tile_width * tile_height <= most or (tile_width, tile_height) == (1, 1):
            return Tiling(
                tile_width,
                tile_height,
                _starts(width, tile_width, columns),
                _starts(height, tile_height, rows),
            )
        if tile_width >= tile_height:
            columns += 1
        else:
            rows += 1


def latent_tiling(profiles: Profiles, architecture: Architecture, *, width: int, height: int) -> Tiling:
    """What the VAE decodes at once of `width` x `height` latents."""
    pixels = profiles.decoder_pixels
    return tiling_of(
        width, height, most=width * height if pixels is None else pixels // architecture.vae_scale**2
    )


def decoded_sizes(profiles: Profiles, architecture: Architecture) -> list[tuple[int, int]]:
    """(width, height) pixels that the VAE decodes at once, of each of the profiles' sizes."""
    scale = architecture.vae_scale
    found = (
        latent_tiling(profiles, architecture, width=width // scale, height=height // scale)
        for width, height in profiles.sizes
    )
    return [(tiling.width * scale, tiling.height * scale) for tiling in found]


def _tile_side(length: int, tiles: int) -> int:
    """Of `tiles` that cover `length` and share a quarter of a tile with the next."""
    return -(-4 * length // (3 * tiles + 1))


def _starts(length: int, side: int, tiles: int) -> tuple[int, ...]:
    return tuple((length - side) * tile // (tiles - 1) for tile in range(tiles)) if tiles > 1 else (0,)


def blend_tiles(
    tiling: Tiling, tiles: Iterable[NDArray[np.uint8]], *, shape: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """[B, H, W, 3], its `shape`, of `tiles`, each [B, h, w, 3], in the order of `tiling.places`; weights fall
    linearly in an overlap.
    """
    if len(tiling.lefts) == len(tiling.tops) == 1:
        (only,) = tiles
        return only
    across = dict(zip(tiling.lefts, _weights(tiling.lefts, tiling.width, shape[2]), strict=True))
    down = dict(zip(tiling.tops, _weights(tiling.tops, tiling.height, shape[1]), strict=True))
    whole = np.zeros(shape, np.float32)
    for (top, left), tile in zip(tiling.places, tiles, strict=True):
        weights = down[top][:, None, None] * across[left][:, None]
        whole[:, top : top + tiling.height, left : left + tiling.width] += weights * tile
    return np.rint(whole).astype(np.uint8)


def _weights(starts: tuple[int, ...], side: int, length: int) -> list[Floats]:
    """Of each tile along one axis, which add up to 1 everywhere: in an overlap a tile counts by the distance
    to its own edge.
    """
    ramps = np.zeros((len(starts), length), np.float32)
    inside = np.minimum(np.arange(side), np.arange(side)[::-1]) + np.float32(0.5)
    for ramp, start in zip(ramps, starts, strict=True):
        ramp[start : start + side] = inside
    ramps /= ramps.sum(0)
    return [ramp[start : start + side] for ramp, start in zip(ramps, starts, strict=True)]
