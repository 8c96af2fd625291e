"""Hundreds of images of mixed sizes, controls and seeds from one server: memory must stay flat, every image
what it was at first.

python -m benchmarks.speed.soak CASE.json WORK_FOLDER [--images 300] [--steps 6]
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.progress import track

from benchmarks.measuring.case import Case, Stopwatch, end_orderly_on_terminate
from benchmarks.measuring.results import write_part
from benchmarks.speed.engines import parameters_of
from benchmarks.speed.served import open_server
from intaglio.engines.card import read_card_memory
from intaglio_client import Client, Parameters

_SETTLED: Final = 0.25
"""Share of the run after which memory must be flat: before, every size is seen for the first time."""
_KEEP_EVERY: Final = 20


@dataclass(frozen=True)
class Job:
    """One of the requests that come again and again."""

    prompt: str
    parameters: Parameters
    controlled: bool

    @property
    def name(self) -> str:
        """What tells it from the others."""
        shown = {
            name: value
            for name, value in self.parameters.items()
            if name in ("width", "height", "seed", "steps", "guidance_scale")
        }
        return f"{shown}, {'with' if self.controlled else 'without'} control"


def make_jobs(case: Case, *, steps: int) -> list[Job]:
    """Every size with and without control, in each guidance mode that is built."""
    jobs: list[Job] = []
    profiles = case.deployment.profiles
    scales = [scale for scale in (case.guidance_scale, 1.0) if (scale > 1) in profiles.guidance_modes]
    for index, (width, height) in enumerate(profiles.sizes):
        for control in dict.fromkeys((case.control, None)):
            for scale in scales:
                own = replace(
                    case.at(width, height), control=control, guidance_scale=scale, steps=steps + index % 3
                )
                jobs.append(Job(own.prompt_of(len(jobs)), parameters_of(own, len(jobs)), control is not None))
    return jobs


def slope(values: Sequence[float]) -> float:
    """Least-squares growth per hundred values."""
    if len(values) < 2:
        return 0.0
    return float(100 * np.polyfit(np.arange(len(values)), np.asarray(values, float), 1)[0])


def summarise(
    digests: dict[str, str], different: list[str], card: list[float], processes: list[dict[str, float]]
) -> dict[str, Any]:
    """What the results file says of a run so far; `processes` is MiB of each of the server's processes after
    every image.
    """
    host = [sum(one.values()) for one in processes]
    settled = int(len(host) * _SETTLED)
    return {
        "images": len(host),
        "requests": len(digests),
        "different_from_first": different,
        "card_slope_mib_per_100": slope(card[settled:]) if card else None,
        "host_slope_mib_per_100": slope(host[settled:]),
        "host_slopes_mib_per_100": {
            name: slope([one.get(name, 0.0) for one in processes[settled:]]) for name in processes[-1]
        },
        "card_mib": [min(card), max(card)] if card else None,
        "host_mib": [min(host), max(host)],
    }


def main(
    case: Path,
    work: Path,
    images: Annotated[int, typer.Option(min=2, help="Images in all.")] = 300,
    steps: Annotated[int, typer.Option(help="Steps of an image; short, so that many fit.")] = 6,
    seconds: Annotated[float, typer.Option(help="Ends the run early, with what it has.")] = 3600.0,
) -> None:
    """Soak the served path."""
    told, watch = Case.read(case), Stopwatch()
    jobs, order = make_jobs(told, steps=steps), np.random.default_rng(told.seed)
    digests: dict[str, str] = {}
    different: list[str] = []
    card: list[float] = []
    host: list[dict[str, float]] = []
    until = time.monotonic() + seconds
    with open_server(told) as server, Client(server.grpc_url) as client:
        for index in track(range(images), description="soak"):
            job = jobs[index if index < len(jobs) else int(order.integers(len(jobs)))]
            with watch.lap("image"):
                made = client.generate(job.prompt, **job.parameters)
            digest = hashlib.sha256(made.pixels.tobytes()).hexdigest()
            if digests.setdefault(job.name, digest) != digest:
                different.append(job.name)
            memory = read_card_memory()
            card += [] if memory is None else [memory.used / 2**20]
            host.append({name: size / 2**20 for name, size in server.process.resident_bytes().items()})
            ended = time.monotonic() > until
            if index % _KEEP_EVERY == 0 or ended or index == images - 1:
                write_part(
                    work,
                    "soak",
                    summarise(digests, different, card, host) | {"seconds": watch.spreads(), "steps": steps},
                )
            if ended:
                break


if __name__ == "__main__":
    end_orderly_on_terminate()
    typer.run(main)
