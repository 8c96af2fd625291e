"""What a detector takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Detection", "Detector"]


@dataclass(frozen=True, slots=True)
class Detection:
    """A control map of a photograph's size."""

    map: NDArray[np.uint8]
    """[H, W, RGB]."""
    people: NDArray[np.float64] | None = None
    """[people, 18, 3]: x and y in pixels, confidence (0: not seen), in OpenPose's order. None where the
    detector looks for no people.
    """
    classes: bool = False
    """Whether colours are classes, which must not be mixed."""


class Detector(Protocol):
    """Makes control maps of one type."""

    def __call__(self, photo: Image.Image, *, name: str) -> Detection:
        """The map of RGB `photo`; errors call it `name`.

        Raises:
            InvalidRequest: what the detector looks for is not in the photograph.
        """
