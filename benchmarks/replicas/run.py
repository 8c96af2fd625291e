"""Simulate 1 to 100 replicas with 10 to 1,000 sets of LoRAs, and write what came of it.

    python -m benchmarks.replicas.run --out benchmarks/results/replicas_simulated.json
The seconds of a picture and of a swap were measured (`benchmarks.replicas.costs`); everything else is a
simulation, and the page says so. Equal arguments give equal results. Page and plot are written beside it.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import track

from benchmarks.replicas.chart import chart_of
from benchmarks.replicas.costs import SOURCES, Costs, measured_costs
from benchmarks.replicas.page import markdown_of
from benchmarks.replicas.policies import POLICIES, policy_of
from benchmarks.replicas.simulation import Case, simulate
from intaglio.builds.manifest import write_json
from intaglio.whole_files import write_whole

__all__ = ["app", "simulated"]

REPLICAS: Final = (1, 3, 10, 30, 100)
LORAS: Final = (10, 100, 1000)
LOADS: Final = {False: (0.3, 0.5, 0.7), True: (0.1, 0.2, 0.3)}
"""By whether files are read. Reading takes so long that higher loads only fill the queues."""
FACTORS: Final = ("1", "1.1", "1.25", "1.5", "2", "inf")
FACTOR_LOADS: Final = {False: (0.5, 0.7), True: (0.2,)}
FACTOR_REPLICAS: Final = (3, 10, 100)
FACTOR_LORAS: Final = 100
app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class _Planned:
    case: Case
    reads: bool
    policy: str
    table: str


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="JSON to write; page and plot go beside it.", show_default=False)],
    requests: Annotated[
        int, typer.Option(min=100, help="Requests of each case, and a fiftieth of it for each replica.")
    ] = 10_000,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a picture.")] = 30,
    seed: Annotated[int, typer.Option(help="Of arrivals and choices.")] = 0,
) -> None:
    """Simulate every case."""
    results = simulated(requests=requests, steps=steps, seed=seed, shows=True)
    write_json(out, results)
    page, plot = out.with_suffix(".md"), out.with_suffix(".svg")
    write_whole(plot, chart_of(results))
    write_whole(page, markdown_of(results, plot=plot.name).encode())
    Console().print(f"wrote {out}, {page.name}, {plot.name}")


def simulated(*, requests: int, steps: int, seed: int, shows: bool = False) -> dict[str, Any]:
    """The results file."""
    costs = {reads: measured_costs(steps=steps, reads=reads) for reads in (False, True)}
    planned = list(_planned(requests, seed))
    tables: dict[str, list[dict[str, Any]]] = {"policies": [], "factors": []}
    for one in track(planned, description="cases", disable=not shows):
        tables[one.table].append(_row(one, costs[one.reads]))
    return {
        "simulated": True,
        "costs": {"files in memory": asdict(costs[False]), "files read": asdict(costs[True])},
        "sources": dict(SOURCES),
        "steps": steps,
        "seed": seed,
        "requests": requests,
        **tables,
    }


def _planned(requests: int, seed: int) -> Iterator[_Planned]:
    for reads in (False, True):
        for load, loras, replicas, policy in itertools.product(LOADS[reads], LORAS, REPLICAS, POLICIES):
            case = _case(requests, seed, replicas=replicas, loras=loras, load=load)
            yield _Planned(case, reads, policy, "policies")
        for load, replicas, factor in itertools.product(FACTOR_LOADS[reads], FACTOR_REPLICAS, FACTORS):
            case = _case(requests, seed, replicas=replicas, loras=FACTOR_LORAS, load=load)
            yield _Planned(case, reads, f"sticky {factor}", "factors")


def _case(requests: int, seed: int, *, replicas: int, loras: int, load: float) -> Case:
    whole = max(requests, requests * replicas // 50)
    return Case(replicas=replicas, loras=loras, load=load, requests=whole, seed=seed)


def _row(planned: _Planned, costs: Costs) -> dict[str, Any]:
    case = planned.case
    outcome = simulate(case, costs, policy_of(planned.policy, case.replicas, random.Random(case.seed)))
    waits = sorted(outcome.waits)
    return {
        "reads": planned.reads,
        "load": case.load,
        "replicas": case.replicas,
        "loras": case.loras,
        "policy": planned.policy,
        "wait_mean": round(statistics.fmean(waits), 3),
        "wait_p50": round(waits[len(waits) // 2], 3),
        "wait_p99": round(waits[math.ceil(0.99 * len(waits)) - 1], 3),
        "swaps_a_picture": round(outcome.swaps / outcome.drawn, 4),
        "reads_a_picture": round(outcome.reads / outcome.drawn, 4),
        "refused": round(outcome.refused / (outcome.refused + outcome.drawn), 4),
    }


if __name__ == "__main__":
    app()
