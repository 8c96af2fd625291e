"""What a person sees of a run: bars on a terminal, a line now and then in a log file; notes in the log of a
program that calls the trainers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["ConsoleReporter", "Reporter", "SilentReporter", "Watch"]

Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""Wraps an iterable to show progress: (items, what, how many) -> items."""

log = logging.getLogger("intaglio_train")

LINE_SECONDS = 10.0
SHORTEST_WATCHED = 3


class Reporter(Protocol):
    """Told how a run proceeds."""

    def watch(self, items: Iterable[Any], what: str, count: int) -> Iterable[Any]: ...
    def begin(self, done: int, steps: int) -> None: ...
    def step(self, step: int) -> None: ...
    def loss(self, step: int, loss: float) -> None: ...
    def note(self, text: str) -> None: ...
    def end(self) -> None: ...


class SilentReporter:
    """Draws nothing; its notes go to the log `intaglio_train`."""

    def watch(self, items: Iterable[Any], what: str, count: int) -> Iterable[Any]:
        return items

    def begin(self, done: int, steps: int) -> None: ...
    def step(self, step: int) -> None: ...
    def loss(self, step: int, loss: float) -> None: ...

    def note(self, text: str) -> None:
        log.warning(text)

    def end(self) -> None: ...


class ConsoleReporter:
    """A bar with loss, steps a second and time left; where the output is no terminal, a line at most every 10
    seconds.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._started = self._said = time.monotonic()
        self._first = self._steps = 0

    def watch(self, items: Iterable[Any], what: str, count: int) -> Iterator[Any]:
        if count < SHORTEST_WATCHED or not self._console.is_terminal:
            yield from items
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, transient=True) as bar:
            yield from bar.track(items, total=count, description=what)

    def begin(self, done: int, steps: int) -> None:
        self._started = time.monotonic()
        self._first = done
        self._steps = steps
        if self._console.is_terminal:
            columns = (
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}  {task.fields[rate]} it/s"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task("training", total=steps, completed=done, loss="-", rate="-")
            self._bar.start()

    def step(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def loss(self, step: int, loss: float) -> None:
        now = time.monotonic()
        rate = (step - self._first) / max(now - self._started, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, loss=f"{loss:.4f}", rate=f"{rate:.2f}")
        elif now - self._said >= LINE_SECONDS:
            self._said = now
            left = (self._steps - step) / max(rate, 1e-9)
            self.note(f"step {step}/{self._steps}  loss {loss:.4f}  {rate:.2f} it/s  {left:.0f} s left")

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
