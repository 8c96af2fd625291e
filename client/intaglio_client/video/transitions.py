"""A frame between two pictures of one size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from PIL import Image

__all__ = ["BETWEEN", "Transition"]

Between = Callable[[Image.Image, Image.Image, float], Image.Image]
"""The picture before, the one after, and how much of the transition is done (0 to 1) -> the frame."""

_CLOSER: Final = 0.5
"""How much larger the picture before is at the end of `zoom`."""


class Transition(StrEnum):
    """How one picture follows another."""

    NONE = "none"
    CROSSFADE = "crossfade"
    SLIDE = "slide"
    ZOOM = "zoom"


def _crossfade(before: Image.Image, after: Image.Image, share: float) -> Image.Image:
    return Image.blend(before, after, share)


def _slide(before: Image.Image, after: Image.Image, share: float) -> Image.Image:
    """The next picture pushes the one before out to the left."""
    moved = round(before.width * share)
    frame = Image.new("RGB", before.size)
    frame.paste(before, (-moved, 0))
    frame.paste(after, (before.width - moved, 0))
    return frame


def _zoom(before: Image.Image, after: Image.Image, share: float) -> Image.Image:
    """The picture before comes closer and fades into the next one."""
    scale = 1 / (1 + _CLOSER * share)
    width, height = before.width * scale, before.height * scale
    left, top = (before.width - width) / 2, (before.height - height) / 2
    box = (left, top, left + width, top + height)
    return Image.blend(before.resize(before.size, Image.Resampling.BILINEAR, box=box), after, share)


BETWEEN: Final[Mapping[Transition, Between]] = {
    Transition.CROSSFADE: _crossfade,
    Transition.SLIDE: _slide,
    Transition.ZOOM: _zoom,
}
