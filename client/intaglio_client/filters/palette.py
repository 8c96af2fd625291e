"""A character of a drawn world, known by the colours that are its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from intaglio.contract.filters import HexColour, PaletteFilter
from intaglio.contract.yaml_files import RegistryId, Strict, read_yaml, validated
from intaglio.errors import ConfigError
from intaglio_client.filters.verdict import Candidate, Verdict

__all__ = ["Palette", "lab_of"]

_TO_XYZ: Final = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ],
    np.float32,
)
"""Linear sRGB to CIE XYZ (IEC 61966-2-1)."""
_WHITE: Final = np.array([0.95047, 1.0, 1.08883], np.float32)
"""D65."""
_LEVEL_BITS: Final = 6
"""Bits of a channel that are looked up: Lab of a level's middle is within 2 of its pixels'."""


class Palettes(Strict):
    """A file of palettes: character -> name of a colour -> colour."""

    characters: dict[RegistryId, dict[str, HexColour]] = Field(min_length=1)


def lab_of(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """CIE Lab (L 0..100) of [..., 3] sRGB values from 0 to 255."""
    scaled = rgb / np.float32(255)
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _WHITE
    roots = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = roots[..., 0], roots[..., 1], roots[..., 2]
    return np.asarray(np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1), np.float32)


class Palette:
    """Accepts pictures in which each of some colours fills a share."""

    def __init__(self, spec: PaletteFilter, colours: Mapping[str, str]) -> None:
        self.name = spec.name
        self._least = spec.least
        self._tables = {
            name: _table(_rgb_of(colour), spec.shades, spec.reach) for name, colour in colours.items()
        }

    @classmethod
    def from_spec(cls, spec: PaletteFilter) -> Palette:
        """The filter; ConfigError where its file is missing or has no such character."""
        if spec.file is None:
            return cls(spec, spec.colours)
        return cls(spec, _colours_in(spec.file, spec.character or ""))

    def __call__(self, candidate: Candidate) -> Verdict:
        levels = candidate.pixels >> (8 - _LEVEL_BITS)
        red, green, blue = levels[..., 0], levels[..., 1], levels[..., 2]
        shares = {name: float(table[red, green, blue].mean()) for name, table in self._tables.items()}
        scores = {name: round(share, 6) for name, share in shares.items()}
        name, share = min(shares.items(), key=lambda item: item[1])
        if share < self._least:
            return Verdict(False, f"{name} fills {share:.4f} of it, below {self._least:g}", scores)
        return Verdict(True, "", scores)


def _colours_in(path: Path, character: str) -> Mapping[str, str]:
    found = validated(Palettes, read_yaml(path), path).characters
    if character not in found:
        raise ConfigError(f"{path}: no character {character!r}; characters: {', '.join(found)}")
    if not found[character]:
        raise ConfigError(f"{path}: characters.{character} has no colour")
    return found[character]


def _rgb_of(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of `#rrggbb`."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _table(rgb: tuple[int, int, int], shades: Sequence[float], reach: float) -> NDArray[np.bool_]:
    """[64, 64, 64] whether RGB in 64 levels has the colour."""
    side = 1 << _LEVEL_BITS
    step = 256 // side
    levels = np.arange(side, dtype=np.float32) * step + (step - 1) / 2
    every = lab_of(np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1))
    shaded = np.clip(np.outer(shades, rgb), 0, 255).astype(np.float32)
    near = [np.linalg.norm(every - shade, axis=-1) < reach for shade in lab_of(shaded)]
    return np.asarray(np.any(near, 0))
