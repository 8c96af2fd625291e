"""How a request shows what happens to it: a bar on a terminal, lines elsewhere.

with display:
    display.show(event)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

import PIL.Image
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from intaglio_client.events import Event, Preview, Progress, Queued
from intaglio_client.terminal.foreground import is_foreground, written_from_background
from intaglio_client.terminal.graphics import Cells, Graphics, cells_of, removal, shown

__all__ = ["Bar", "Display", "Lines", "Silent", "described"]

_LINE_SECONDS: Final = 1.0
"""Between two lines in a file."""
_BAR: Final = 30
_HIDE: Final = "\x1b[?25l"
_SHOW: Final = "\x1b[?25h"
"""Of the cursor."""
_MOST: Final = Cells(80, 20)
"""The largest preview."""
_MARGIN: Final = 3
"""Rows of the terminal that a preview leaves: the bar, the command and one more."""


class Display(Protocol):
    """Shows events."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: Event) -> None:
        """Show what happened."""

    def say(self, text: str) -> None:
        """Show `text` in place of the last event."""


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: Event) -> None: ...

    def say(self, text: str) -> None: ...


class Lines(Silent):
    """A line for what is new, at most one in a second."""

    def __init__(
        self,
        console: Console,
        *,
        seconds: float = _LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._seconds = seconds
        self._clock = clock
        self._written = -float("inf")

    def show(self, event: Event) -> None:
        text = described(event)
        now = self._clock()
        if text and now - self._written >= self._seconds:
            self._written = now
            self._console.print(text, markup=False)


class Bar:
    """A line at the bottom of a terminal that moves, and above it the newest preview.

    While another job has the terminal nothing is drawn.
    """

    def __init__(self, console: Console, *, graphics: Graphics | None = None) -> None:
        """`graphics` None: previews are not shown."""
        self._console = console
        self._graphics = graphics
        self._cells = Cells(0, 0)
        """The room that is kept above the line."""
        self._line = ""
        self._hides_cursor = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._has_terminal():
            up = f"\x1b[{self._cells.rows}A" if self._cells.rows else ""
            gone = removal(self._graphics) if self._graphics and self._cells.rows else ""
            self._write(f"{gone}\r{up}\x1b[J")
            self._show_cursor()

    def show(self, event: Event) -> None:
        if not self._has_terminal():  # rich writes, if only nothing, whenever it draws
            return
        if isinstance(event, Preview):
            if self._graphics is not None:
                self._show_picture(_beside(event))
        elif isinstance(event, Progress):
            self._show_line(described(event), event.step, event.steps)
        elif text := described(event):
            self.say(text)

    def say(self, text: str) -> None:
        if self._has_terminal():
            self._show_line(text, 0, None)

    def _show_line(self, text: str, step: int, steps: int | None) -> None:
        bar = ProgressBar(total=steps, completed=step, width=_BAR, pulse=steps is None)
        row = Table.grid(padding=(0, 1))
        row.add_row(bar, Text(text))
        with self._console.capture() as captured:
            self._console.print(row, no_wrap=True, overflow="ellipsis", soft_wrap=False)
        self._line = captured.get().split("\n", 1)[0]
        self._write(f"\r\x1b[2K{self._line}")

    def _show_picture(self, picture: PIL.Image.Image) -> None:
        assert self._graphics is not None
        if not self._cells.rows:
            self._make_room(picture.size)
        # The cursor is saved at the line, and comes back to it.
        drawn = shown(picture, self._graphics, self._cells, self._console)
        self._write(f"\x1b7\r\x1b[{self._cells.rows}A{drawn}\x1b8")

    def _make_room(self, size: tuple[int, int]) -> None:
        width, height = self._console.size
        within = Cells(min(_MOST.columns, width - 1), min(_MOST.rows, height - _MARGIN))
        if within.rows < 1 or within.columns < 1:
            self._graphics = None
            return
        self._cells = cells_of(size, within=within)
        self._write("\r\x1b[2K" + "\n" * self._cells.rows + self._line)

    def _write(self, text: str) -> None:
        hide = "" if self._hides_cursor else _HIDE
        self._hides_cursor = True
        self._console.file.write(hide + text)
        self._console.file.flush()

    def _has_terminal(self) -> bool:
        if is_foreground(self._console.file):
            return True
        self._show_cursor()
        self._cells = Cells(0, 0)  # who has the terminal now writes there
        return False

    def _show_cursor(self) -> None:
        if self._hides_cursor:
            self._hides_cursor = False
            with written_from_background():
                self._console.file.write(_SHOW)
                self._console.file.flush()


def described(event: Event) -> str:
    """`step 5 of 30, 1.5 s left, 2 wait`; empty for what needs no words."""
    if isinstance(event, Queued):
        before = "next" if event.place == 0 else f"{event.place} before it"
        return f"waiting: {before}"
    if isinstance(event, Progress):
        others = f", {event.waiting} waiting" if event.waiting else ""
        return f"step {event.step} of {event.steps}, {event.seconds_left:.1f} s left{others}"
    return ""


def _beside(preview: Preview) -> PIL.Image.Image:
    """The pictures of a preview, side by side."""
    pictures = [preview.decode(index) for index in range(len(preview.images))]
    if len(pictures) == 1:
        return pictures[0]
    sheet = PIL.Image.new("RGB", (sum(one.width for one in pictures), max(one.height for one in pictures)))
    left = 0
    for one in pictures:
        sheet.paste(one, (left, 0))
        left += one.width
    return sheet
