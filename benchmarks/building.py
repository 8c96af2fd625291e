"""A build, timed: stages, most memory of the host and of the card.

python -m benchmarks.building CASE.json WORK_FOLDER
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import typer

from benchmarks.case import Case
from benchmarks.results import write_part
from intaglio.card import PeakWatch
from intaglio_export.build import BuildOptions, build_deployment
from intaglio_export.stages import StageOutcome


class Journal:
    """A reporter that prints a line a stage, and keeps what is known in the results."""

    def __init__(self, work: Path, watch: PeakWatch, *, part: str = "build") -> None:
        self._work = work
        self._part = part
        self._watch = watch
        self._started = time.perf_counter()
        self.stages: dict[str, float] = {}
        self.resumed = False
        """Whether an earlier build had done a part: then the time is not that of a build."""

    def planned(self, seconds: float) -> None:
        """Nothing is known of a first build."""

    def started(self, stage: str, reason: str) -> None:
        print(f"{time.perf_counter() - self._started:7.1f} s  {stage} ({reason})", flush=True)

    def finished(self, outcome: StageOutcome, expected: float) -> None:
        self.stages[outcome.name] = round(outcome.seconds, 3)
        self.resumed |= not outcome.done
        self.keep(complete=False)

    def waiting(self) -> None:
        print("another build is at work", flush=True)

    def keep(self, *, complete: bool) -> None:
        """Write what is known so far."""
        values = {
            "complete": complete,
            "resumed": self.resumed,
            "seconds": round(time.perf_counter() - self._started, 3),
            "stages": self.stages,
            "host_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            "card_peak_mib": None if self._watch.taken is None else self._watch.taken >> 20,
            "card_free_before_mib": None if self._watch.before is None else self._watch.before.free >> 20,
        }
        write_part(self._work, self._part, values)


def main(case: Path, work: Path) -> None:
    """Build the case's deployment."""
    with PeakWatch() as watch:
        journal = Journal(work, watch)
        build_deployment(Path(Case.read(case).config), BuildOptions(), reporter=journal)
        journal.keep(complete=True)


if __name__ == "__main__":
    typer.run(main)
