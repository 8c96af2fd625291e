"""What a detector takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.errors import InvalidRequest

__all__ = ["Detection", "Detector", "check_proportions"]

_LONGEST: Final = 8
"""How many times as long as the shorter side of a photograph the longer one may be (`check_proportions`)."""


@dataclass(frozen=True, slots=True)
class Detection:
    """A control map of a photograph's size."""

    map: NDArray[np.uint8]
    """[H, W, RGB]."""
    people: NDArray[np.float64] | None = None
    """[people, 18, 3]: x and y in pixels, confidence (0: not seen), in OpenPose's order. [people, 128, 3]
    where hands or faces were read, too. None where the detector looks for no people.
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


def check_proportions(photo: Image.Image, *, name: str) -> None:
    """Raise InvalidRequest where `photo` is a narrow strip.

    Detectors with torch give the shorter side a fixed length. The limit on the pixels of a photograph does
    not bound what they make of a strip of one pixel's width.
    """
    short, long = sorted(photo.size)
    if long > _LONGEST * short:
        shown = f"{photo.width}x{photo.height}"
        raise InvalidRequest(
            name, shown, allowed=f"a longer side of at most {_LONGEST} times the shorter one"
        )
