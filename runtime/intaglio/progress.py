"""How long work shows its progress: a bar with the time left on a terminal, lines in a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Bar", "Lines", "progress_for"]

_LINE_SECONDS: Final = 10.0
"""Between two lines in a file."""


class Bar:
    """What is at work, a bar, and the time left."""

    def __init__(self, console: Console, total: float) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=max(total, 0.1))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def started(self, work: str) -> None:
        """Show what is at work."""
        self._progress.update(self._task, description=escape(work))

    def finished(self, weight: float) -> None:
        """Count what is done."""
        self._progress.advance(self._task, weight)


class Lines:
    """A line every few seconds."""

    def __init__(
        self,
        console: Console,
        total: float,
        *,
        seconds: float = _LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._total = max(total, 0.1)
        self._seconds = seconds
        self._clock = clock
        self._began = clock()
        self._written = self._began
        self._done = 0.0
        self._at_work = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def started(self, work: str) -> None:
        """Note what is at work."""
        self._at_work = work

    def finished(self, weight: float) -> None:
        """Count what is done, and write a line when the last one is old enough."""
        self._done += weight
        now = self._clock()
        if now - self._written >= self._seconds:
            self._written = now
            self._console.print(escape(self.line()), soft_wrap=True)

    def line(self) -> str:
        """`80 s, 25 % done, 240 s left; walking: euler 30`."""
        passed = self._clock() - self._began
        share = min(self._done / self._total, 1.0)
        left = f", {passed * (1 - share) / share:.0f} s left" if share > 0 else ""
        return f"{passed:.0f} s, {100 * share:.0f} % done{left}; {self._at_work}"


def progress_for(console: Console, total: float) -> Bar | Lines:
    """A bar where `console` is a terminal, otherwise lines."""
    return Bar(console, total) if console.is_terminal else Lines(console, total)
