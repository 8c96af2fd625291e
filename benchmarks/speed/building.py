"""A build, timed: stages, most memory of the host and of the card.

python -m benchmarks.speed.building CASE.json WORK_FOLDER [--part build_sizes]
"""

from __future__ import annotations

import resource
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Self

import typer

from benchmarks.measuring.case import Case
from benchmarks.measuring.results import write_part
from intaglio.engines.card import PeakWatch
from intaglio_export.build import BuildOptions, build_deployment
from intaglio_export.plan.stages import StageOutcome

_EVERY: Final = 0.25


class HostWatch:
    """Most memory of its own that this process held: not the pages of mapped files, which `ru_maxrss` counts
    and anybody may have back.
    """

    def __init__(self) -> None:
        self.kib = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="host memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY):
            fields = dict(
                line.split(":", 1)
                for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
            )
            self.kib = max(self.kib, int(fields["RssAnon"].split()[0]))


class Journal:
    """A reporter that prints a line a stage, and keeps what is known in the results."""

    def __init__(self, work: Path, watch: PeakWatch, host: HostWatch, *, part: str = "build") -> None:
        self._work = work
        self._part = part
        self._watch = watch
        self._host = host
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
            "host_peak_own_mib": self._host.kib >> 10,
            "card_peak_mib": None if self._watch.taken is None else self._watch.taken >> 20,
            "card_free_before_mib": None if self._watch.before is None else self._watch.before.free >> 20,
        }
        write_part(self._work, self._part, values)


def main(
    case: Path, work: Path, part: Annotated[str, typer.Option(help="Name in the results.")] = "build"
) -> None:
    """Build the case's deployment."""
    with PeakWatch() as watch, HostWatch() as host:
        journal = Journal(work, watch, host, part=part)
        build_deployment(Path(Case.read(case).config), BuildOptions(), reporter=journal)
        journal.keep(complete=True)


if __name__ == "__main__":
    typer.run(main)
