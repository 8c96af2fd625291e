"""What a network found in a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["FoundObject", "FoundObjects", "ObjectFinder"]


@dataclass(frozen=True, slots=True)
class FoundObject:
    """One object. Coordinates are pixels of the picture from its upper left corner."""

    class_id: int
    class_name: str
    confidence: float
    box: tuple[float, float, float, float]
    """Left, top, right, bottom, within the picture."""


@dataclass(frozen=True, slots=True)
class FoundObjects:
    """N objects as arrays, before they have names."""

    classes: NDArray[np.int64]
    """[N]."""
    scores: NDArray[np.float64]
    """[N], 0 to 1."""
    boxes: NDArray[np.float64]
    """[N, 4]: left, top, right, bottom."""

    def at(self, indices: NDArray[np.intp]) -> FoundObjects:
        """Those at `indices`, in their order."""
        return FoundObjects(self.classes[indices], self.scores[indices], self.boxes[indices])

    def within(self, picture: Image.Image, names: Sequence[str]) -> Iterator[FoundObject]:
        """Each as an object, its box cut at the edge of `picture`; one that has no area there is left out."""
        limits = np.array([*picture.size, *picture.size], np.float64)
        for class_id, score, box in zip(
            self.classes.tolist(), self.scores.tolist(), self.boxes.clip(0, limits), strict=True
        ):
            left, top, right, bottom = box.tolist()
            if right > left and bottom > top:
                yield FoundObject(class_id, names[class_id], score, (left, top, right, bottom))


class ObjectFinder(Protocol):
    """Finds objects of known classes."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the classes, by their number."""
        ...

    def __call__(self, picture: Image.Image) -> Sequence[FoundObject]:
        """The objects in RGB `picture`; the most certain comes first."""
        ...
