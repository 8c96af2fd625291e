"""The parts of a benchmark: each one is a process of its own, and a run takes up where the last one stopped.

A process of its own has a cold start and its own memory, and gives everything back when it ends. What a part
found is kept in the work folder, so the same command goes on with the parts that are missing.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from rich.console import Console

from benchmarks.measuring.ballast import ballast
from benchmarks.measuring.results import ROOT, read_part, write_part
from benchmarks.measuring.watches import CARD, peak_mib
from intaglio.engines.card import PeakWatch
from intaglio.errors import ConfigError

__all__ = [
    "Part",
    "Schedule",
    "due_parts",
    "end_orderly_on_terminate",
    "run_part",
    "run_parts",
    "wanted_parts",
]

_GRACE_SECONDS: Final = 15.0
_SHOWN_LINES: Final = 4
_SHOWN_CHARACTERS: Final = 600


@dataclass(frozen=True, slots=True)
class Part:
    """One contender or test."""

    name: str
    module: str
    """Called as `python -m MODULE CASE_FILE WORK_FOLDER OPTIONS`."""
    options: tuple[str, ...] = ()
    case: str = "case.json"
    """Name of its case file in the work folder."""
    ballast: bool = False
    """Whether it must do with the memory of a small card."""
    least_seconds: float = 30.0
    """It does not begin with less time left."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which parts a run wants, and how much time it has for them."""

    parts: Sequence[Part]
    work: Path
    ends: float
    """By `time.monotonic`."""
    again: bool = False
    """Whether parts that are done run again."""
    free_gib: float | None = None
    """What a ballast leaves free of the card; None for no ballast."""


def wanted_parts(table: Sequence[Part], names: str) -> list[Part]:
    """The parts of `table` that `names` lists with commas, in the table's order; "all" for all.

    Raises:
        ConfigError: a name is unknown.
    """
    known = [part.name for part in table]
    asked = known if names == "all" else names.split(",")
    if unknown := sorted(set(asked) - set(known)):
        raise ConfigError(f"parts: {', '.join(unknown)} is unknown; parts are {', '.join(known)}")
    return [part for part in table if part.name in asked]


def run_parts(
    schedule: Schedule,
    *,
    options: Callable[[Part, float], Sequence[str]],
    keep: Callable[[], None],
    console: Console,
) -> bool:
    """Run what is due; whether all of it ended well. A part that was not begun for lack of time did not.

    `options` gives what a part is told beside its own options, from the part and the seconds left. `keep`
    writes the results file; it is called after every part.
    """
    well = True
    for part, left in due_parts(schedule, console):
        if left < part.least_seconds:
            console.print(f"{part.name}: {left:.0f} s left, not begun")
            well = False
            continue
        with ballast(schedule.free_gib if part.ballast else None) as free:
            beside = "" if free is None else f", {free:.2f} GiB of the card free"
            console.print(f"{part.name}: begins, {left:.0f} s left{beside}")
            values = run_part(part, schedule.work, seconds=left, extra=options(part, left))
        well &= "failed" not in values
        outcome = values.get("failed", "done")
        console.print(f"{part.name}: {outcome}, {values['wall_seconds']:.0f} s", markup=False)
        keep()
    keep()
    return well


def due_parts(schedule: Schedule, console: Console) -> Iterator[tuple[Part, float]]:
    """The parts that are not done, each with the seconds left when its turn comes. Names those that are."""
    for part in schedule.parts:
        if not schedule.again and _is_done(schedule.work, part):
            console.print(f"{part.name}: done before")
        else:
            yield part, schedule.ends - time.monotonic()


def _is_done(work: Path, part: Part) -> bool:
    """A part whose run was killed has no `wall_seconds`: `run_part` writes them at the end."""
    values = read_part(work, part.name) or {}
    return "wall_seconds" in values and "failed" not in values


def run_part(part: Part, work: Path, *, seconds: float, extra: Sequence[str] = ()) -> dict[str, Any]:
    """Run one part for at most `seconds`; what it wrote, with how it ended."""
    started = time.perf_counter()
    case_file = work / part.case
    command = [sys.executable, "-m", part.module, str(case_file), str(work), *part.options, *extra]
    log = work / f"{part.name}.log"
    with log.open("w", encoding="utf-8") as file, PeakWatch(CARD) as peak:
        code = _run_for(command, seconds, file)
    values = read_part(work, part.name) or {}
    taken = time.perf_counter() - started
    if code != 0:
        ending = "cut off" if code is None else f"exit {code}"
        values["failed"] = f"{ending} after {taken:.0f} s: {_last_lines(log)}"
    values["wall_seconds"] = round(taken, 1)
    values.setdefault("card_peak_mib", peak_mib(peak))
    write_part(work, part.name, values)
    return values


def _run_for(command: Sequence[str], seconds: float, log: IO[str]) -> int | None:
    """Exit code; None where the time was up."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # first a request, so that the part's server ends with it
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return None


def _last_lines(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return " / ".join([line for line in lines if line][-_SHOWN_LINES:])[-_SHOWN_CHARACTERS:]


def end_orderly_on_terminate() -> None:
    """Turn SIGTERM into an exit that leaves `with` blocks as usual: a server must not outlive its part."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
