"""How a batch shows its progress: a bar with the time left on a terminal, lines in a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

__all__ = ["Bar", "Lines", "Pace", "progress_for"]

_LINE_SECONDS: Final = 10.0
"""Between two lines in a file."""
_SECONDS: Final = 60


class Pace:
    """What is said of a batch, from its counts and the time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._fresh = 0
        self.tried = 0
        self.left = 0
        self._accepted = 0

    def count(self, *, tried: int, accepted: int, left: int, fresh: bool) -> None:
        """Take in what `Watcher.advanced` says."""
        self._fresh += fresh
        self.tried, self._accepted, self.left = tried, accepted, left

    @property
    def text(self) -> str:
        """`80 pictures, 61 accepted (76 %), 58 a minute, 2:10 left`."""
        share = f" ({100 * self._accepted / self.tried:.0f} %)" if self.tried else ""
        counts = f"{self.tried} pictures, {self._accepted} accepted{share}"
        seconds = self._clock() - self._began
        if not self._fresh or seconds <= 0:
            return counts
        rate = self._fresh / seconds
        return f"{counts}, {rate * _SECONDS:.3g} a minute, {_clock_text(self.left / rate)} left"


def _clock_text(seconds: float) -> str:
    """`2:10`, or `3:02:10`."""
    minutes, rest = divmod(round(seconds), _SECONDS)
    hours, minutes = divmod(minutes, _SECONDS)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Bar:
    """A bar at the bottom of a terminal."""

    def __init__(self, console: Console) -> None:
        self._pace = Pace()
        self._progress = Progress(
            BarColumn(), TextColumn("{task.description}"), console=console, transient=True
        )
        self._task: TaskID = self._progress.add_task("waiting for the first picture", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advanced(self, *, tried: int, accepted: int, left: int, fresh: bool) -> None:
        """Show the counts."""
        self._pace.count(tried=tried, accepted=accepted, left=left, fresh=fresh)
        self._progress.update(
            self._task, completed=tried, total=tried + left, description=escape(self._pace.text)
        )

    def waiting(self, problems: Sequence[str]) -> None:
        """Show that no server can be reached."""
        self._progress.update(self._task, description=escape(f"no server: {problems[0]}"))


class Lines:
    """A line every few seconds."""

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
        self._pace = Pace(clock)
        self._written = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def advanced(self, *, tried: int, accepted: int, left: int, fresh: bool) -> None:
        """Count, and write a line when the last one is old enough."""
        self._pace.count(tried=tried, accepted=accepted, left=left, fresh=fresh)
        self._write(self._pace.text)

    def waiting(self, problems: Sequence[str]) -> None:
        """Say that no server can be reached."""
        self._write(f"no server: {problems[0]}")

    def _write(self, text: str) -> None:
        now = self._clock()
        if now - self._written >= self._seconds:
            self._written = now
            self._console.print(escape(text), soft_wrap=True)


def progress_for(console: Console) -> Bar | Lines:
    """A bar where `console` is a terminal, otherwise lines."""
    return Bar(console) if console.is_terminal else Lines(console)
