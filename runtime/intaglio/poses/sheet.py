"""A contact sheet: every pose drawn small, with its name below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from intaglio.imaging.openpose import draw_pose
from intaglio.imaging.pose_library import NamedPose

__all__ = ["CELL", "contact_sheet"]

CELL: Final = 128
"""Width and height in pixels of the square of a pose."""
_TITLE: Final = 16
_GAP: Final = 4
_COLUMNS: Final = 8
_DRAWN: Final = 256
"""Side of the map that is made small: strokes do not grow thinner than those of 512 pixels."""


def contact_sheet(poses: Sequence[NamedPose], *, columns: int = _COLUMNS) -> NDArray[np.uint8]:
    """[H, W, RGB] sheet of `poses`, row by row; at least one pose."""
    columns = min(columns, len(poses))
    rows = -(-len(poses) // columns)
    across, down = CELL + _GAP, CELL + _TITLE + _GAP
    sheet = Image.new("RGB", (columns * across + _GAP, rows * down + _GAP), (40, 40, 40))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    for index, pose in enumerate(poses):
        row, column = divmod(index, columns)
        left, top = _GAP + column * across, _GAP + row * down
        sheet.paste(_square(pose), (left, top))
        draw.text((left, top + CELL), _fitting(pose.name, draw, font), fill=(255, 255, 255), font=font)
    return np.asarray(sheet, dtype=np.uint8)


def _square(pose: NamedPose) -> Image.Image:
    """The pose with its aspect kept, in the middle of a black square."""
    width, height = pose.canvas
    scale = _DRAWN / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    drawn = Image.fromarray(draw_pose(pose.keypoints, width=size[0], height=size[1]))
    square = Image.new("RGB", (_DRAWN, _DRAWN))
    square.paste(drawn, ((_DRAWN - size[0]) // 2, (_DRAWN - size[1]) // 2))
    return square.resize((CELL, CELL), Image.Resampling.BOX)


def _fitting(name: str, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """`name`, cut at the left where it is wider than a square: the ends of names differ."""
    if draw.textlength(name, font=font) <= CELL:
        return name
    while draw.textlength(f"..{name}", font=font) > CELL:
        name = name[1:]
    return f"..{name}"
