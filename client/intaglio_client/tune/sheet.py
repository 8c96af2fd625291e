"""Contact sheet: scenes are rows, settings are columns, the reference comes first."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import PIL.Image
from PIL import ImageDraw, ImageFont

from intaglio_client.tune.distances import Pixels

__all__ = ["MOST_BYTES", "sheet_of"]

MOST_BYTES: Final = 300 * 1024
"""Of the PNG: tiles become smaller until it is no larger."""
_SIDES: Final = (256, 224, 192, 160, 128, 96, 64)
"""Longer sides of a tile in pixels, largest first."""
_HEAD: Final = 34
_GAP: Final = 2


def sheet_of(columns: Sequence[str], rows: Sequence[Sequence[Pixels]]) -> bytes:
    """A PNG of `rows` of pictures [H, W, RGB] below the names of their `columns`."""
    data = b""
    for side in _SIDES:
        data = _drawn(columns, rows, side)
        if len(data) <= MOST_BYTES:
            break
    return data


def _drawn(columns: Sequence[str], rows: Sequence[Sequence[Pixels]], side: int) -> bytes:
    tiles = [[_tile(pixels, side) for pixels in row] for row in rows]
    width = max(tile.width for row in tiles for tile in row) + _GAP
    heights = [max(tile.height for tile in row) + _GAP for row in tiles]
    sheet = PIL.Image.new("RGB", (width * len(columns), _HEAD + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for index, name in enumerate(columns):
        draw.multiline_text(
            (index * width + 2, 2), _folded(name, draw, font, width - 4), fill="black", font=font
        )
    top = _HEAD
    for row, height in zip(tiles, heights, strict=True):
        for index, tile in enumerate(row):
            sheet.paste(tile, (index * width, top))
        top += height
    buffer = io.BytesIO()
    sheet.quantize(256, dither=PIL.Image.Dither.FLOYDSTEINBERG).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _tile(pixels: Pixels, side: int) -> PIL.Image.Image:
    image = PIL.Image.fromarray(pixels)
    image.thumbnail((side, side), PIL.Image.Resampling.LANCZOS)
    return image


def _folded(
    name: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float
) -> str:
    """`name` in at most two lines of `width` pixels, broken at a comma or a blank."""
    first: list[str] = []
    words = name.split(" ")
    while words and draw.textlength(" ".join([*first, words[0]]), font=font) <= width:
        first.append(words.pop(0))
    if not first:
        return name
    return "\n".join(filter(None, (" ".join(first), " ".join(words))))
