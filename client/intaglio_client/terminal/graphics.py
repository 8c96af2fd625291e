"""How terminals show pictures: as text to write.

    kitty    kitty's protocol: a PNG in parts, which replaces the one of the same id
    iterm2   iTerm2's inline files
    sixel    DEC's sixels, six rows of pixels a line, with a palette
    blocks   two pixels a cell, as a coloured half block: every terminal with colours

Sources: sw.kovidgoyal.net/kitty/graphics-protocol, iterm2.com/documentation-images.html,
vt100.net/docs/vt3xx-gp/chapter14.html.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Literal

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from rich.color import Color
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style

__all__ = ["CELL", "Cells", "Graphics", "cells_of", "graphics_of", "removal", "shown"]

Graphics = Literal["kitty", "iterm2", "sixel", "blocks"]
CELL: Final = (10, 20)
"""Width and height in pixels that a cell of a terminal is taken to have."""
_KITTY_ID: Final = 2031
"""Of our picture among those of other programs in the same terminal."""
_KITTY_PART: Final = 4096
_SIXEL_COLOURS: Final = 128
_MULTIPLEXERS: Final = ("screen", "tmux")


@dataclass(frozen=True, slots=True)
class Cells:
    """The size of a picture in cells."""

    columns: int
    rows: int


def graphics_of(environment: Mapping[str, str], *, has_sixels: Callable[[], bool]) -> Graphics:
    """What the terminal of a process with `environment` can show; `has_sixels` asks the terminal itself."""
    terminal, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or terminal.startswith(_MULTIPLEXERS):
        return "blocks"  # a multiplexer drops the other protocols or draws them at wrong places
    if "KITTY_WINDOW_ID" in environment or terminal in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return "sixel" if has_sixels() else "blocks"


def cells_of(size: tuple[int, int], *, within: Cells) -> Cells:
    """The most cells within `within` that a picture of `size` pixels fills without being stretched."""
    width, height = size
    ratio = CELL[1] / CELL[0] * width / height  # columns a row
    rows = max(1, min(within.rows, int(within.columns / ratio)))
    return Cells(max(1, min(within.columns, round(rows * ratio))), rows)


def shown(picture: PIL.Image.Image, graphics: Graphics, cells: Cells, console: Console) -> str:
    """What to write where the upper left cell of the picture shall be. The cursor may move."""
    match graphics:
        case "kitty":
            return _kitty(picture, cells)
        case "iterm2":
            return _iterm2(picture, cells)
        case "sixel":
            return _sixel(picture.resize((cells.columns * CELL[0], cells.rows * CELL[1])))
        case "blocks":
            size = (cells.columns, 2 * cells.rows)
            return _blocks(picture.resize(size, PIL.Image.Resampling.BOX), console)


def removal(graphics: Graphics) -> str:
    """What removes a picture that does not go with the text."""
    return f"\x1b_Ga=d,d=I,i={_KITTY_ID},q=2\x1b\\" if graphics == "kitty" else ""


def _kitty(picture: PIL.Image.Image, cells: Cells) -> str:
    data = base64.b64encode(_png(picture)).decode()
    parts = [data[start : start + _KITTY_PART] for start in range(0, len(data), _KITTY_PART)]
    # a=T shows at once; q=2: no answers, which would go to the shell; C=1: the cursor stays.
    keys = f"a=T,f=100,i={_KITTY_ID},p=1,q=2,C=1,c={cells.columns},r={cells.rows},"
    written = []
    for number, part in enumerate(parts):
        more = int(number < len(parts) - 1)
        written.append(f"\x1b_G{keys}m={more};{part}\x1b\\")
        keys = "q=2,"
    return "".join(written)


def _iterm2(picture: PIL.Image.Image, cells: Cells) -> str:
    png = _png(picture)
    size = f"size={len(png)};width={cells.columns};height={cells.rows};preserveAspectRatio=0"
    return f"\x1b]1337;File=inline=1;{size}:{base64.b64encode(png).decode()}\x07"


def _png(picture: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _sixel(picture: PIL.Image.Image) -> str:
    """Each band of six rows has one line of sixels a colour; `$` returns to its left end, `-` ends it."""
    indexed = picture.convert("RGB").quantize(_SIXEL_COLOURS, dither=PIL.Image.Dither.NONE)
    pixels = np.asarray(indexed)
    palette = np.asarray(indexed.getpalette()).reshape(-1, 3)
    used = np.unique(pixels)
    percent = np.rint(palette[used] * 100 / 255).astype(int)
    colours = "".join(
        f"#{index};2;{r};{g};{b}" for index, (r, g, b) in zip(used, percent.tolist(), strict=True)
    )
    bands = [_sixel_band(pixels[top : top + 6]) for top in range(0, len(pixels), 6)]
    return f'\x1bP0;1q"1;1;{picture.width};{picture.height}{colours}{"-".join(bands)}\x1b\\'


def _sixel_band(band: NDArray[np.uint8]) -> str:
    weights = 1 << np.arange(len(band))
    lines = []
    for colour in np.unique(band):
        bits = (weights[:, None] * (band == colour)).sum(axis=0)
        runs = [(chr(63 + bit), len(list(group))) for bit, group in groupby(bits.tolist())]
        lines.append(f"#{colour}" + "".join(f"!{length}{sign}" for sign, length in runs))
    return "$".join(lines)


def _blocks(picture: PIL.Image.Image, console: Console) -> str:
    """Rows end with CR LF. Colours are those that `console` can show."""
    pixels = np.asarray(picture.convert("RGB"))
    rows = []
    for upper, lower in zip(pixels[0::2].tolist(), pixels[1::2].tolist(), strict=True):
        cells = [
            Segment("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
            for above, below in zip(upper, lower, strict=True)
        ]
        with console.capture() as captured:
            console.print(Segments(cells), end="", soft_wrap=True)
        rows.append(captured.get())
    return "\r\n".join(rows)
