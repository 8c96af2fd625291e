"""Seconds against distance as a PNG: every setting is a dot, the front a line, the presets have names."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import PIL.Image
from PIL import ImageDraw, ImageFont

from intaglio_client.tune.results import Row, front

__all__ = ["chart_of", "ticks"]

_WIDTH: Final = 1000
_HEIGHT: Final = 620
_LEFT: Final = 70
_TOP: Final = 50
_RIGHT: Final = 30
_BOTTOM: Final = 60
_SCALE: Final = 2
"""Drawn at twice the size and made smaller, for smooth edges."""
_COLOURS: Final = ("#3b6ea5", "#c05a2e", "#5a8f3d", "#8a5aa8", "#b08a1e", "#3f8f8f", "#a53b5e", "#666666")
_INK: Final = "#222222"
_GRID: Final = "#e4e4e4"
_FRONT: Final = "#999999"
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class _Axes:
    """From figures to places on the drawing."""

    seconds: tuple[float, float]
    psnr: tuple[float, float]

    def x(self, seconds: float) -> float:
        low, high = self.seconds
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (seconds - low) / (high - low)

    def y(self, psnr: float) -> float:
        low, high = self.psnr
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (psnr - low) / (high - low)


def chart_of(rows: Sequence[Row], presets: Mapping[str, Row], *, title: str) -> bytes:
    """A PNG of the rows that are not listed apart."""
    shown = [row for row in rows if not row.setting.apart]
    image = PIL.Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), "white")
    pen = _Pen(ImageDraw.Draw(image))
    axes = _axes_of(shown)
    pen.frame(axes, title)
    line = [(axes.x(row.ratio.value), axes.y(row.psnr.value)) for row in front(shown)]
    pen.line(line, _FRONT, 2)
    colours = _colours_of(shown)
    taken: list[Box] = []
    for row in shown:
        pen.dot(axes, row, colours[_kind(row)])
        x, y = axes.x(row.ratio.value), axes.y(row.psnr.value)
        taken.append((x - 6, y - 6, x + 6, y + 6))
    for text, row in _labels(shown, presets):
        pen.label(text, (axes.x(row.ratio.value), axes.y(row.psnr.value)), taken)
    pen.legend(colours)
    smooth = image.resize((_WIDTH, _HEIGHT), PIL.Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    smooth.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def ticks(low: float, high: float, *, most: int = 8) -> list[float]:
    """Round numbers from `low` to `high`: multiples of 1, 2 or 5 times a power of ten, at most `most`."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10):
        first = math.ceil(low / (step * factor) - 1e-9)
        last = math.floor(high / (step * factor) + 1e-9)
        if last - first + 1 <= most:
            return [round(index * step * factor, 10) for index in range(first, last + 1)]
    return [low, high]


def _axes_of(rows: Sequence[Row]) -> _Axes:
    highest = max(row.ratio.value for row in rows)
    below = min(row.psnr.value - row.psnr.error for row in rows)
    above = max(row.psnr.value + row.psnr.error for row in rows)
    margin = 0.06 * max(above - below, 1.0)
    return _Axes((0.0, 1.06 * highest), (below - margin, above + margin))


def _kind(row: Row) -> str:
    """What the colour says: the solver, and whether the ControlNet runs in every step."""
    scheduler = str(row.setting.inputs.get("scheduler", "default"))
    every = row.setting.inputs.get("control_every", 1)
    return scheduler if every == 1 else f"{scheduler}, control_every {every}"


def _colours_of(rows: Sequence[Row]) -> dict[str, str]:
    kinds = list(dict.fromkeys(_kind(row) for row in rows))
    return {kind: _COLOURS[index % len(_COLOURS)] for index, kind in enumerate(kinds)}


def _labels(rows: Sequence[Row], presets: Mapping[str, Row]) -> list[tuple[str, Row]]:
    """The presets by their names, then the steps of each other setting of the front and of the baseline."""
    names: dict[int, list[str]] = {}
    for name, row in presets.items():
        names.setdefault(id(row), []).append(name)
    by_id = {id(row): row for row in presets.values()}
    found = [(f"{' = '.join(texts)}: {by_id[key].setting.name}", by_id[key]) for key, texts in names.items()]
    ahead = {id(row) for row in front(rows)}
    for row in rows:
        is_plain_euler = set(row.setting.inputs) == {"scheduler", "steps"} and _kind(row) == "euler"
        if id(row) not in names and (id(row) in ahead or is_plain_euler):
            found.append((row.setting.name, row))
    return found


class _Pen:
    """Draws in the drawing's own units."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw = draw
        self._font = ImageFont.load_default(13 * _SCALE)
        self._title = ImageFont.load_default(15 * _SCALE)

    def frame(self, axes: _Axes, title: str) -> None:
        """Title, ticks and names of the axes."""
        self.text((_LEFT, 14), title, title=True)
        for value in ticks(*axes.seconds):
            x = axes.x(value)
            self.line([(x, _TOP), (x, _HEIGHT - _BOTTOM)], _GRID, 1)
            self.text((x - 8, _HEIGHT - _BOTTOM + 6), f"{value:g}")
        for value in ticks(*axes.psnr):
            y = axes.y(value)
            self.line([(_LEFT, y), (_WIDTH - _RIGHT, y)], _GRID, 1)
            self.text((_LEFT - 34, y - 8), f"{value:g}")
        self.text((_LEFT, _HEIGHT - 30), "seconds of a picture, over those of 30 Euler steps: left is faster")
        self.text((_LEFT, _TOP - 18), "dB to the converged picture: higher is nearer")

    def dot(self, axes: _Axes, row: Row, colour: str) -> None:
        """A dot with one standard error up and down."""
        x, y = axes.x(row.ratio.value), axes.y(row.psnr.value)
        low, high = axes.y(row.psnr.value - row.psnr.error), axes.y(row.psnr.value + row.psnr.error)
        self.line([(x, low), (x, high)], colour, 1)
        box = [_SCALE * value for value in (x - 4, y - 4, x + 4, y + 4)]
        self._draw.ellipse(box, fill=colour)

    def label(self, text: str, place: tuple[float, float], taken: list[Box]) -> None:
        """Text beside a dot, where nothing else is; a text without room is left out."""
        width = self._draw.textlength(text, font=self._font) / _SCALE
        x, y = place
        for left, top in (
            (x + 9, y - 8), (x + 9, y + 6), (x + 9, y - 22), (x - 9 - width, y - 8), (x - 9 - width, y - 22),
            (x - width / 2, y + 10), (x - width / 2, y - 26), (x + 9, y + 20), (x + 9, y - 36),
            (x + 9, y + 34), (x + 9, y - 50),
        ):  # fmt: skip
            box = (left, top, left + width, top + 15)
            inside = left > _LEFT and box[2] < _WIDTH - 4 and top > _TOP and box[3] < _HEIGHT - _BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                self.text((left, top), text)
                return

    def legend(self, colours: Mapping[str, str]) -> None:
        """One line for each colour, at the lower right."""
        top = _HEIGHT - _BOTTOM - 20 * len(colours) - 6
        left = _WIDTH - _RIGHT - 250
        for index, (kind, colour) in enumerate(colours.items()):
            y = top + 20 * index
            box = [_SCALE * value for value in (left, y + 4, left + 8, y + 12)]
            self._draw.ellipse(box, fill=colour)
            self.text((left + 16, y), kind)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: int) -> None:
        """Straight lines between `points`."""
        scaled = [(_SCALE * x, _SCALE * y) for x, y in points]
        self._draw.line(scaled, fill=colour, width=width * _SCALE)

    def text(self, place: tuple[float, float], text: str, *, title: bool = False) -> None:
        """Text whose upper left corner is at `place`."""
        x, y = place
        font = self._title if title else self._font
        self._draw.text((_SCALE * x, _SCALE * y), text, fill=_INK, font=font)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
