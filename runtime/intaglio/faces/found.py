"""A face in a picture, and what finds and embeds faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Embedding", "FaceFinder", "FaceReader", "FoundFace", "ReadFace", "unit"]

Embedding = NDArray[np.float64]
"""[D], of length 1."""


@dataclass(frozen=True, slots=True)
class FoundFace:
    """A face that a detector found, in pixels of the picture."""

    box: NDArray[np.float64]
    """Left, top, right, bottom."""
    points: NDArray[np.float64]
    """[5, 2] x, y: the eye on the left of the picture, the other eye, nose, both corners of the mouth.
    [4, 2]: the middle of the mouth instead of its corners.
    """
    confidence: float


@dataclass(frozen=True, slots=True)
class ReadFace:
    """A face with its embedding, which no text of it shows."""

    box: NDArray[np.float64]
    confidence: float
    embedding: Embedding = field(repr=False)

    @property
    def side(self) -> float:
        """The shorter side of the box in pixels."""
        return float(np.min(self.box[2:] - self.box[:2]))


class FaceFinder(Protocol):
    """Finds faces."""

    def __call__(self, picture: Image.Image) -> Sequence[FoundFace]:
        """The faces in RGB `picture`; the most certain comes first."""
        ...


class FaceReader(Protocol):
    """Finds and embeds faces."""

    def __call__(self, picture: Image.Image) -> Sequence[ReadFace]:
        """The faces in RGB `picture`; the most certain comes first."""
        ...


def unit(vector: NDArray[Any]) -> Embedding:
    """`vector` with length 1; one of zeros stays as it is."""
    wide = np.asarray(vector, np.float64)
    length = float(np.linalg.norm(wide))
    return wide / length if length else wide
