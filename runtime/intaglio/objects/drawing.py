"""Pictures with the boxes of what was found in them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from intaglio.objects.found import FoundObject

__all__ = ["drawn"]

_TURN: Final = 0.618034
"""The golden ratio: neighbouring class numbers get hues that are far from each other."""


def drawn(picture: Image.Image, objects: Sequence[FoundObject]) -> Image.Image:
    """A copy of RGB `picture` with a box, the class and the confidence of each object."""
    shown = picture.copy()
    draw = ImageDraw.Draw(shown)
    shorter = min(picture.size)
    line, size = max(1, shorter // 250), max(10, shorter // 45)
    font = ImageFont.load_default(size)
    for one in reversed(objects):  # the most certain on top
        colour = _colour(one.class_id)
        left, top, right, bottom = one.box
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=line)
        text = f"{one.class_name} {one.confidence:.2f}"
        place = (left, max(0.0, top - size - 2 * line))
        draw.rectangle(draw.textbbox(place, text, font=font), fill=colour)
        draw.text(place, text, fill="black", font=font)
    return shown


def _colour(class_id: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(class_id * _TURN % 1.0, 0.65, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
