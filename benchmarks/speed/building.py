"""A build, timed: seconds of its stages, the most memory that it took of the host and of the card.

python -m benchmarks.speed.building CASE.json WORK_FOLDER [--part build_sizes]
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.measuring.case import Case
from benchmarks.measuring.results import write_part
from benchmarks.measuring.watches import CARD, HostWatch, free_before_mib, host_peak_mib, peak_mib
from intaglio.engines.card import PeakWatch
from intaglio_export.build import BuildOptions, build_deployment
from intaglio_export.plan.stages import StageOutcome

__all__ = ["Journal", "measure_build"]


class Journal:
    """A reporter that prints a line a stage and keeps in the results what is known so far."""

    def __init__(self, work: Path, part: str, *, card: PeakWatch, host: HostWatch) -> None:
        self._work = work
        self._part = part
        self._card = card
        self._host = host
        self._started = time.perf_counter()
        self.stages: dict[str, float] = {}
        self.resumed = False
        """Whether an earlier build had done some of the work: the time is then not that of a build."""

    def planned(self, seconds: float) -> None:
        """Nothing to print: how long a first build takes is not known."""

    def started(self, stage: str, reason: str) -> None:
        """A stage begins."""
        print(f"{time.perf_counter() - self._started:7.1f} s  {stage} ({reason})", flush=True)

    def finished(self, outcome: StageOutcome, expected: float) -> None:
        """A stage ended, or was there already."""
        self.stages[outcome.name] = round(outcome.seconds, 3)
        self.resumed |= not outcome.done
        self.keep(complete=False)

    def waiting(self) -> None:
        """Another build holds the lock."""
        print("another build is at work", flush=True)

    def keep(self, *, complete: bool) -> None:
        """Write what is known so far."""
        values = {
            "complete": complete,
            "resumed": self.resumed,
            "seconds": round(time.perf_counter() - self._started, 3),
            "stages": self.stages,
            "host_peak_mib": host_peak_mib(),
            "host_peak_own_mib": self._host.kib >> 10,
            "card_peak_mib": peak_mib(self._card),
            "card_free_before_mib": free_before_mib(self._card),
        }
        write_part(self._work, self._part, values)


def measure_build(config: Path, work: Path, part: str) -> None:
    """Build the deployment of `config` and keep what it took as the results of `part`."""
    with PeakWatch(CARD) as card, HostWatch() as host:
        journal = Journal(work, part, card=card, host=host)
        build_deployment(config, BuildOptions(), reporter=journal)
        journal.keep(complete=True)


def main(
    case: Path, work: Path, part: Annotated[str, typer.Option(help="Name in the results.")] = "build"
) -> None:
    """Build the case's deployment."""
    measure_build(Path(Case.read(case).config), work, part)


if __name__ == "__main__":
    typer.run(main)
