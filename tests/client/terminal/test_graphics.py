"""Pictures as text for terminals; what a test can decode is decoded."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from rich.console import Console

from intaglio_client.terminal.graphics import CELL, Cells, Graphics, cells_of, graphics_of, removal, shown


def drawing() -> PIL.Image.Image:
    """Four fields of different colours."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20, :20] = 255, 0, 0
    pixels[:20, 20:] = 0, 255, 0
    pixels[20:, :20] = 0, 0, 255
    return PIL.Image.fromarray(pixels)


def console(system: str = "truecolor") -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=system, width=80)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("environment", "sixels", "found"),
    [
        ({"TERM": "xterm-kitty"}, False, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, False, "kitty"),
        ({"TERM": "xterm-ghostty"}, False, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, True, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, False, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, False, "iterm2"),
        ({"TERM": "foot"}, True, "sixel"),
        ({"TERM": "xterm-256color"}, False, "blocks"),
        ({}, False, "blocks"),
        ({"TERM": "xterm-256color", "TMUX": "/tmp/x", "KITTY_WINDOW_ID": "1"}, True, "blocks"),
        ({"TERM": "screen.xterm-256color", "TERM_PROGRAM": "iTerm.app"}, True, "blocks"),
    ],
)
def test_what_a_terminal_can_show(environment: dict[str, str], sixels: bool, found: Graphics) -> None:
    assert graphics_of(environment, has_sixels=lambda: sixels) == found


@pytest.mark.parametrize(
    ("size", "within", "cells"),
    [
        ((256, 256), Cells(80, 20), Cells(40, 20)),
        ((256, 256), Cells(20, 20), Cells(20, 10)),
        ((512, 256), Cells(80, 20), Cells(80, 20)),
        ((256, 512), Cells(80, 20), Cells(20, 20)),
        ((1000, 10), Cells(80, 20), Cells(80, 1)),
    ],
)
def test_a_picture_keeps_its_shape(size: tuple[int, int], within: Cells, cells: Cells) -> None:
    assert cells_of(size, within=within) == cells


def test_kitty_gets_a_png_in_parts() -> None:
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", shown(noise, "kitty", Cells(40, 20), console()))
    assert len(parts) > 2
    assert all(len(data) <= 4096 and len(data) % 4 == 0 for _, data in parts)
    assert [re.search("m=(.)", keys)[1] for keys, _ in parts] == [*"1" * (len(parts) - 1), "0"]  # type: ignore[index]
    assert {"a=T", "f=100", "c=40", "r=20", "C=1", "q=2"} <= set(parts[0][0].split(","))
    png = base64.b64decode("".join(data for _, data in parts))
    assert np.array_equal(np.asarray(PIL.Image.open(io.BytesIO(png))), np.asarray(noise))
    number = re.search(r"i=(\d+)", parts[0][0])
    assert number is not None
    assert f"i={number[1]}," in removal("kitty")


def test_iterm2_gets_a_png() -> None:
    text = shown(drawing(), "iterm2", Cells(40, 20), console())
    found = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+);width=40;height=20;.*:([^\x07]*)\x07", text)
    assert found is not None
    png = base64.b64decode(found[2])
    assert len(png) == int(found[1])
    assert np.array_equal(np.asarray(PIL.Image.open(io.BytesIO(png))), np.asarray(drawing()))


def decoded_sixels(text: str) -> NDArray[np.uint8]:
    """The pixels of a picture in sixels, as vt100.net/docs/vt3xx-gp/chapter14.html reads them."""
    found = re.fullmatch(r'\x1bP0;1q"1;1;(\d+);(\d+)(.*)\x1b\\', text, re.DOTALL)
    assert found is not None
    width, height = int(found[1]), int(found[2])
    pixels = np.full((height, width, 3), 77, np.uint8)
    palette: dict[int, list[float]] = {}
    colour = x = top = 0
    for token in re.findall(r"#\d+(?:;2;\d+;\d+;\d+)?|!\d+.|[$-]|.", found[3]):
        if token.startswith("#"):
            colour, *rgb = (int(part) for part in token[1:].replace(";2;", ";").split(";"))
            if rgb:
                palette[colour] = [value * 2.55 for value in rgb]
        elif token == "$":
            x = 0
        elif token == "-":
            x, top = 0, top + 6
        else:
            count = int(token[1:-1]) if token.startswith("!") else 1
            for row in range(6):
                if (ord(token[-1]) - 63) >> row & 1:
                    pixels[top + row, x : x + count] = palette[colour]
            x += count
    return pixels


def test_sixels_are_the_picture() -> None:
    cells = Cells(8, 5)
    pixels = decoded_sixels(shown(drawing(), "sixel", cells, console()))
    wanted = drawing().resize((cells.columns * CELL[0], cells.rows * CELL[1]))
    assert pixels.shape == (100, 80, 3)
    assert np.abs(pixels.astype(int) - np.asarray(wanted).astype(int)).max() <= 12
    assert removal("sixel") == ""


def test_blocks_have_two_pixels_a_cell() -> None:
    rows = shown(drawing(), "blocks", Cells(4, 2), console()).split("\r\n")
    assert [row.count("▀") for row in rows] == [4, 4]
    red, green = "38;2;255;0;0;48;2;255;0;0m", "38;2;0;255;0;48;2;0;255;0m"
    assert rows[0].count(red) == rows[0].count(green) == 2
    assert "38;2;0;0;255;48;2;0;0;255m" in rows[1]
    few = shown(drawing(), "blocks", Cells(4, 2), console("256"))
    assert "38;5;" in few
    assert "38;2" not in few
