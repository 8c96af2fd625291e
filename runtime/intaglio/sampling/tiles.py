"""Tiles of a picture that is too large for the VAE to decode whole: where they lie, and how they are blended.

The VAE's activations are the largest of all networks', and they grow with the pixels decoded together. Tiles
overlap by about a quarter and are blended there. A tile does not know the rest of the picture, while
normalisations and the middle block's attention would see all of it. So its colours differ from those of the
whole, and the smaller the tile, the more. Tiles are for sizes that do not fit otherwise.
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
    """Tiles of one size, row by row; the unit is that of the picture (latents or pixels)."""

    width: int
    height: int
    """Width and height of one tile."""
    lefts: tuple[int, ...]
    """Left edge of each column of tiles."""
    tops: tuple[int, ...]
    """Upper edge of each row of tiles."""

    @property
    def places(self) -> Iterator[tuple[int, int]]:
        """(top, left) of each tile."""
        return ((top, left) for top in self.tops for left in self.lefts)

    def scaled(self, factor: int) -> Tiling:
        """The tiling of a picture `factor` times as wide and as high."""
        lefts = tuple(factor * left for left in self.lefts)
        tops = tuple(factor * top for top in self.tops)
        return Tiling(factor * self.width, factor * self.height, lefts, tops)


def tiling_of(width: int, height: int, *, most: int) -> Tiling:
    """Tiles that cover `width` x `height`: few, nearly square, each of at most `most` places."""
    columns = 1
    rows = 1
    while True:
        tile_width = _tile_side(width, columns)
        tile_height = _tile_side(height, rows)
        if tile_width * tile_height <= most or (tile_width, tile_height) == (1, 1):
            lefts = _starts(width, tile_width, columns)
            tops = _starts(height, tile_height, rows)
            return Tiling(tile_width, tile_height, lefts, tops)
        if tile_width >= tile_height:
            columns += 1
        else:
            rows += 1


def latent_tiling(profiles: Profiles, architecture: Architecture, *, width: int, height: int) -> Tiling:
    """The tiles in which the VAE decodes `width` x `height` latents."""
    most = width * height
    if profiles.decoder_pixels is not None:
        most = profiles.decoder_pixels // architecture.vae_scale**2
    return tiling_of(width, height, most=most)


def decoded_sizes(profiles: Profiles, architecture: Architecture) -> list[tuple[int, int]]:
    """(width, height) in pixels of the tiles of each of the profiles' sizes."""
    scale = architecture.vae_scale
    found: list[tuple[int, int]] = []
    for width, height in profiles.sizes:
        tiling = latent_tiling(profiles, architecture, width=width // scale, height=height // scale)
        found.append((tiling.width * scale, tiling.height * scale))
    return found


def _tile_side(length: int, tiles: int) -> int:
    """Side of a tile where `tiles` of them cover `length`, each sharing a quarter with the next."""
    return -(-4 * length // (3 * tiles + 1))


def _starts(length: int, side: int, tiles: int) -> tuple[int, ...]:
    if tiles == 1:
        return (0,)
    return tuple((length - side) * tile // (tiles - 1) for tile in range(tiles))


def blend_tiles(
    tiling: Tiling, tiles: Iterable[NDArray[np.uint8]], *, shape: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """The picture [B, H, W, 3] of `shape`, made of `tiles` [B, h, w, 3] in the order of `tiling.places`.

    In an overlap the weight of a tile falls linearly towards its edge.
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
    """[side] weights of each tile along one axis; they add up to 1 everywhere.

    In an overlap the weight of a tile is proportional to the distance to its edge.
    """
    ramps = np.zeros((len(starts), length), np.float32)
    inside = np.minimum(np.arange(side), np.arange(side)[::-1]) + np.float32(0.5)
    for ramp, start in zip(ramps, starts, strict=True):
        ramp[start : start + side] = inside
    ramps /= ramps.sum(0)
    return [ramp[start : start + side] for ramp, start in zip(ramps, starts, strict=True)]
