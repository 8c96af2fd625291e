"""How a build shows its progress: a bar on a terminal, lines in a file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from intaglio_export.plan.stages import StageOutcome

__all__ = ["ConsoleReporter", "LineReporter", "reporter_for"]

_LINE_SECONDS: Final = 5.0
"""Between two lines in a file."""


class ConsoleReporter:
    """Shows a progress bar with the time left, the stage at work and the reason for it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("looking for what changed", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def planned(self, seconds: float) -> None:
        self._progress.update(self._task, total=max(seconds, 0.1))

    def started(self, stage: str, reason: str) -> None:
        self._progress.update(self._task, description=escape(f"{stage} ({reason})"))

    def finished(self, outcome: StageOutcome, expected: float) -> None:
        self._progress.advance(self._task, expected)

    def waiting(self) -> None:
        self._console.print("another build is at work in this folder; waiting until it ends")


class LineReporter:
    """Writes a line every few seconds while stages are at work, and nothing where nothing must be done."""

    def __init__(
        self, console: Console, *, seconds: float = _LINE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._seconds = seconds
        self._clock = clock
        self._began = clock()
        self._planned = 0.0
        self._done = 0.0
        self._stages = 0
        self._at_work: dict[str, float] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write_lines, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def planned(self, seconds: float) -> None:
        self._planned = seconds

    def started(self, stage: str, reason: str) -> None:
        with self._lock:
            self._at_work[stage] = self._clock()

    def finished(self, outcome: StageOutcome, expected: float) -> None:
        with self._lock:
            self._at_work.pop(outcome.name, None)
            self._done += expected
            self._stages += outcome.done

    def waiting(self) -> None:
        self._console.print("another build is at work in this folder; waiting until it ends")

    def line(self) -> str:
        """`12 s, 7 stages done (20 %); at work: engine/unet 9 s, verify/vae_decoder 2 s`."""
        now = self._clock()
        with self._lock:
            work = ", ".join(f"{stage} {now - since:.0f} s" for stage, since in self._at_work.items())
            percent = 100 * self._done / self._planned if self._planned else 0.0
            done = f"{now - self._began:.0f} s, {self._stages} stages done ({min(percent, 99):.0f} %)"
        return f"{done}; at work: {work or 'reading the configuration'}"

    def _write_lines(self) -> None:
        while not self._ended.wait(self._seconds):
            self._console.print(escape(self.line()), soft_wrap=True)


def reporter_for(console: Console) -> ConsoleReporter | LineReporter:
    """A bar where `console` is a terminal, otherwise lines."""
    return ConsoleReporter(console) if console.is_terminal else LineReporter(console)
