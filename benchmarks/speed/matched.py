"""Settings that compute less, over gRPC: ControlNets on some steps only, and a solver that needs fewer steps.

    python -m benchmarks.speed.matched CASE.json WORK_FOLDER
Settings take turns at every image, and another one begins each time, so a drift of the machine meets all.
What the pictures are worth is measured on models with real weights: `intaglio tune`.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Final

import typer

from benchmarks.measuring.case import Case
from benchmarks.measuring.parts import end_orderly_on_terminate
from benchmarks.measuring.results import write_part
from benchmarks.measuring.timing import Stopwatch
from benchmarks.speed.served import ask, open_server
from benchmarks.speed.settings import SETTINGS
from intaglio_client import Client

_DEADLINE: Final = 300


def main(case: Path, work: Path) -> None:
    """Measure every setting on the case's images."""
    told = Case.read(case)
    told.draw_controls(told.images)
    watch = Stopwatch()
    names = list(SETTINGS)
    with ExitStack() as stack:
        server = stack.enter_context(open_server(told))
        client = stack.enter_context(Client(server.grpc_url, deadline=_DEADLINE))
        for name in names:
            ask(client, told, -1, **SETTINGS[name])
        for image in range(told.images):
            first = image % len(names)
            for name in names[first:] + names[:first]:
                with watch.lap(name):
                    ask(client, told, image, **SETTINGS[name])
            write_part(work, "matched", {"seconds": watch.spreads()})


if __name__ == "__main__":
    end_orderly_on_terminate()
    typer.run(main)
