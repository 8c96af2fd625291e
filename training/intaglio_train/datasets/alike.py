"""Images that show nearly the same, by their perceptual hashes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from intaglio_train.datasets.measured import Measured

__all__ = ["NEAR", "Hashes", "names_of_groups"]

NEAR: Final = 4
"""Bits of 64 in which the hashes of near duplicates differ at most."""
_BITS: Final = np.array([value.bit_count() for value in range(2**16)], np.uint8)


class Hashes:
    """The hashes of some images, compared with all of them together."""

    def __init__(self, most: int) -> None:
        self._words: NDArray[np.uint16] = np.zeros((most, 4), np.uint16)
        self._count = 0

    def differences(self, value: int) -> NDArray[np.int64]:
        """In how many bits `value` differs from each hash, in the order in which they were added."""
        words = self._words[: self._count] ^ _words(value)
        found: NDArray[np.int64] = _BITS[words].sum(axis=1, dtype=np.int64)
        return found

    def add(self, value: int) -> None:
        self._words[self._count] = _words(value)
        self._count += 1


def names_of_groups(images: Sequence[Measured]) -> dict[Path, str]:
    """Image -> the name of the first image of its group. What is near to one of a group belongs to it.

    An image that cannot be read has no hash, so it is alone.
    """
    readable = [image for image in images if not image.problem]
    by_hash: dict[int, int] = {}  # hash -> its place among those that differ
    of = [by_hash.setdefault(image.hash, len(by_hash)) for image in readable]
    labels = _labels(list(by_hash))
    first: dict[int, str] = {}
    names = {
        image.path: first.setdefault(int(labels[place]), image.path.name)
        for image, place in zip(readable, of, strict=True)
    }
    return names | {image.path: image.path.name for image in images if image.problem}


def _labels(values: Sequence[int]) -> NDArray[np.int64]:
    """Of each hash the place of the first one of its group."""
    hashes = Hashes(len(values))
    labels = np.arange(len(values))
    for index, value in enumerate(values):
        near = np.unique(labels[:index][hashes.differences(value) <= NEAR])
        if near.size:
            labels[index] = near[0]
            if near.size > 1:
                labels[:index][np.isin(labels[:index], near)] = near[0]
        hashes.add(value)
    return labels


def _words(value: int) -> NDArray[np.uint16]:
    return np.frombuffer(value.to_bytes(8, "big"), np.uint16)
