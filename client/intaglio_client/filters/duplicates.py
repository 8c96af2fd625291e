"""Pictures that look alike, by a perceptual hash."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from intaglio.contract.filters import DuplicatesFilter
from intaglio_client.filters.verdict import Candidate, Verdict

__all__ = ["Duplicates", "perceptual_hash"]

_SIDE: Final = 32
_FREQUENCIES: Final = 8
"""Of each axis; 8 times 8 bits are the hash."""


def _cosines() -> NDArray[np.float64]:
    """[8, 32] rows of the discrete cosine transform (DCT-II)."""
    places = (2 * np.arange(_SIDE) + 1) * np.pi / (2 * _SIDE)
    return np.cos(np.arange(_FREQUENCIES)[:, None] * places[None])


_COSINES: Final = _cosines()


def perceptual_hash(pixels: NDArray[np.uint8]) -> int:
    """64 bits of [H, W, RGB]: which of the 64 lowest frequencies of the luma are above their median.

    The method is pHash's (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010).
    """
    small = PIL.Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), PIL.Image.Resampling.BOX)
    spectrum = _COSINES @ np.asarray(small, np.float64) @ _COSINES.T
    bits = (spectrum > np.median(spectrum)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


class Duplicates:
    """Remembers the hashes of what it let through. Time grows with their number: 2 ms at 10000."""

    def __init__(self, spec: DuplicatesFilter) -> None:
        self.name = spec.name
        self._distance = spec.distance
        self._hashes: list[int] = []
        self._names: list[str] = []

    def __call__(self, candidate: Candidate) -> Verdict:
        found = perceptual_hash(candidate.pixels)
        scores: dict[str, Any] = {"hash": f"{found:016x}"}
        if self._hashes:
            distances = [(found ^ known).bit_count() for known in self._hashes]
            near = int(np.argmin(distances))
            scores |= {"distance": distances[near], "nearest": self._names[near]}
            if distances[near] <= self._distance:
                return Verdict(False, f"{distances[near]} bits from {self._names[near]}", scores)
        self._take(candidate.name, found)
        return Verdict(True, "", scores)

    def recall(self, name: str, verdict: Verdict) -> None:
        """Take in the hash of a picture that was let through."""
        if verdict.accepted:
            self._take(name, int(verdict.scores["hash"], 16))

    def _take(self, name: str, found: int) -> None:
        self._hashes.append(found)
        self._names.append(name)
