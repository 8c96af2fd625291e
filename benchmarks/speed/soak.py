"""Hundreds of images of mixed sizes, controls and seeds from one server.

    python -m benchmarks.speed.soak CASE.json WORK_FOLDER [--images 300] [--steps 6]
Memory must stay flat, and every image must equal its first rendering.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.progress import track

from benchmarks.measuring.case import Case
from benchmarks.measuring.parts import end_orderly_on_terminate
from benchmarks.measuring.results import write_part
from benchmarks.measuring.timing import Stopwatch
from benchmarks.measuring.watches import CARD
from benchmarks.speed.served import open_server
from intaglio.engines.card import read_card_memory
from intaglio_client import NO_RETRIES, Client, Parameters

__all__ = ["Job", "Record", "make_jobs", "slope"]

_SETTLED: Final = 0.25
"""Share of the run after which memory must be flat. Before, sizes are seen for the first time."""
_KEEP_EVERY: Final = 20
_SHOWN: Final = ("width", "height", "seed", "steps", "guidance_scale")


@dataclass(frozen=True)
class Job:
    """One of the requests that come again and again."""

    prompt: str
    parameters: Parameters
    controlled: bool

    @property
    def name(self) -> str:
        """What tells it from the others."""
        shown = {name: value for name, value in self.parameters.items() if name in _SHOWN}
        return f"{shown}, {'with' if self.controlled else 'without'} control"


def make_jobs(case: Case, *, steps: int) -> list[Job]:
    """Every size with and without control, in each guidance mode that is built."""
    jobs: list[Job] = []
    profiles = case.deployment.profiles
    controls = list(dict.fromkeys((case.control, None)))
    scales = [scale for scale in (case.guidance_scale, 1.0) if (scale > 1) in profiles.guidance_modes]
    for index, (width, height) in enumerate(profiles.sizes):
        sized = replace(case.at(width, height), steps=steps + index % 3)
        for control in controls:
            for scale in scales:
                own = replace(sized, control=control, guidance_scale=scale)
                number = len(jobs)
                jobs.append(Job(own.prompt_of(number), own.parameters_of(number), control is not None))
    return jobs


def slope(values: Sequence[float]) -> float:
    """Least-squares growth per hundred values."""
    if len(values) < 2:
        return 0.0
    return float(100 * np.polyfit(np.arange(len(values)), np.asarray(values, float), 1)[0])


@dataclass
class Record:
    """What a soak has seen so far."""

    digests: dict[str, str] = field(default_factory=dict)
    """Of each job's first image."""
    different: list[str] = field(default_factory=list)
    """Jobs, once for every image that differs from their first one."""
    card: list[float] = field(default_factory=list)
    """MiB in use on the card after every image; empty without a card."""
    processes: list[dict[str, float]] = field(default_factory=list)
    """MiB of each of the server's processes after every image."""

    def add_image(self, job: str, pixels: bytes) -> None:
        """Compare an image with the first one of its job."""
        digest = hashlib.sha256(pixels).hexdigest()
        if self.digests.setdefault(job, digest) != digest:
            self.different.append(job)

    def add_memory(self, processes: Mapping[str, int]) -> None:
        """Note the card's memory and that of the server's processes (bytes)."""
        card = read_card_memory(CARD)
        if card is not None:
            self.card.append(card.used / 2**20)
        self.processes.append({name: size / 2**20 for name, size in processes.items()})

    def summary(self) -> dict[str, Any]:
        """What the results file says."""
        host = [sum(one.values()) for one in self.processes]
        settled = int(len(host) * _SETTLED)
        slopes = {}
        for name in self.processes[-1]:
            slopes[name] = slope([one.get(name, 0.0) for one in self.processes[settled:]])
        return {
            "images": len(host),
            "requests": len(self.digests),
            "different_from_first": self.different,
            "card_slope_mib_per_100": slope(self.card[settled:]) if self.card else None,
            "host_slope_mib_per_100": slope(host[settled:]),
            "host_slopes_mib_per_100": slopes,
            "card_mib": [min(self.card), max(self.card)] if self.card else None,
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
    told = Case.read(case)
    jobs = make_jobs(told, steps=steps)
    order = np.random.default_rng(told.seed)
    watch = Stopwatch()
    record = Record()
    until = time.monotonic() + seconds
    with open_server(told) as server, Client(server.grpc_url, retries=NO_RETRIES) as client:
        for index in track(range(images), description="soak"):
            # Every job once, then at random.
            job = jobs[index if index < len(jobs) else int(order.integers(len(jobs)))]
            with watch.lap("image"):
                made = client.generate(job.prompt, **job.parameters)
            record.add_image(job.name, made.pixels.tobytes())
            record.add_memory(server.process.resident_bytes())
            ended = time.monotonic() > until or index == images - 1
            if index % _KEEP_EVERY == 0 or ended:
                found = record.summary() | {"seconds": watch.spreads(), "steps": steps}
                write_part(work, "soak", found)
            if ended:
                break


if __name__ == "__main__":
    end_orderly_on_terminate()
    typer.run(main)
