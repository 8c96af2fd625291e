"""One count of instances under load: every request at the same moment, then requests at random times.

    python -m benchmarks.gpus.load CASE.json WORK_FOLDER --part served_2 --count 2
The first load finds the capacity, the second asks for `--share` of it. A latency goes from the time at which
a request was due to the last byte of its picture.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer

from benchmarks.measuring.case import Case
from benchmarks.measuring.parts import end_orderly_on_terminate
from benchmarks.measuring.results import write_part
from benchmarks.speed.served import ask, open_server
from intaglio.serving.cards import read_memory_of, served_gpus
from intaglio_client import NO_RETRIES, Client
from intaglio_client.image import Image
from intaglio_export.build import BuildOptions, build_deployment
from intaglio_export.plan.stages import StageOutcome

__all__ = ["arrivals", "latencies", "offline"]

_DEADLINE: Final = 600
"""Seconds that one picture may take, with all that wait before it."""
_WARM: Final = 2
"""Pictures of each instance that are not measured."""
_MOST_THREADS: Final = 512


class _Lines:
    """A reporter that prints a line a stage."""

    def planned(self, seconds: float) -> None:
        """Nothing to say."""

    def started(self, stage: str, reason: str) -> None:
        """A stage begins."""
        print(f"{stage} ({reason})", flush=True)

    def finished(self, outcome: StageOutcome, expected: float) -> None:
        """A stage ended."""

    def waiting(self) -> None:
        """Another build holds the lock."""


def arrivals(rate: float, seconds: float, *, least: int, seed: int = 1) -> list[float]:
    """Times of a Poisson process of `rate` a second: those within `seconds`, and at least `least`."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, size=max(least, int(rate * seconds * 2) + 8))
    times = np.cumsum(gaps)
    return [float(when) for place, when in enumerate(times) if place < least or when <= seconds]


def offline(client: Client, case: Case, images: int) -> dict[str, Any]:
    """Ask for all `images` at the same moment: pictures a second, and the mean seconds of each stage."""
    case.draw_controls(images)
    started = time.perf_counter()
    with ThreadPoolExecutor(min(images, _MOST_THREADS)) as pool:
        made = list(pool.map(lambda image: ask(client, case, image), range(images)))
    seconds = time.perf_counter() - started
    return {
        "images": images,
        "seconds": round(seconds, 3),
        "images_per_second": images / seconds,
        "stage_seconds": _stages(made),
    }


def latencies(client: Client, case: Case, times: Sequence[float]) -> list[float]:
    """Ask for a picture at each of `times`; seconds from then to the picture."""
    case.draw_controls(len(times))
    started = time.perf_counter() + 0.1

    def one(image: int) -> float:
        due = started + times[image]
        time.sleep(max(0.0, due - time.perf_counter()))
        ask(client, case, image)
        return time.perf_counter() - due

    with ThreadPoolExecutor(min(len(times), _MOST_THREADS)) as pool:
        return list(pool.map(one, range(len(times))))


def _stages(made: Sequence[Image]) -> dict[str, float]:
    """Mean seconds of each stage but `request`, in which the wait is."""
    names = sorted({name for image in made for name in image.timings} - {"request"})
    return {name: statistics.fmean(image.timings.get(name, 0.0) for image in made) for name in names}


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    shares = {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
    return {name: float(np.percentile(seconds, share)) for name, share in shares.items()}


def main(  # noqa: PLR0913, PLR0917  (each is one option)
    case: Path,
    work: Path,
    part: Annotated[str, typer.Option(help="Name in the results.")],
    count: Annotated[int, typer.Option(min=1, help="Instances that draw.")],
    images: Annotated[int, typer.Option(min=1, help="Pictures of an instance in the first load.")] = 16,
    open_seconds: Annotated[float, typer.Option(help="How long the second load asks.")] = 75.0,
    share: Annotated[float, typer.Option(help="Of the capacity, in the second load.")] = 0.8,
) -> None:
    """Measure both loads."""
    told = Case.read(case)
    values: dict[str, Any] = {"count": count}

    def keep(**found: Any) -> None:
        values.update(found)
        write_part(work, part, values)

    started = time.perf_counter()
    build_deployment(Path(told.config), BuildOptions(), reporter=_Lines())
    keep(build_seconds=round(time.perf_counter() - started, 1))
    started = time.perf_counter()
    with open_server(told) as server:
        keep(start_seconds=round(time.perf_counter() - started, 1), memory_report=server.memory_report)
        with Client(server.grpc_url, deadline=_DEADLINE, retries=NO_RETRIES) as client:
            # Prompts of their own in each load: no cache of embeddings helps.
            offline(client, replace(told, prompt=f"{told.prompt}, first"), _WARM * count)
            found = offline(client, told, images * count)
            keep(offline=found)
            rate = share * found["images_per_second"]
            times = arrivals(rate, open_seconds, least=4)
            seconds = latencies(client, replace(told, prompt=f"{told.prompt}, at random"), times)
        cards = read_memory_of(served_gpus(told.deployment))
        keep(
            open={
                "share": share,
                "rate": rate,
                "requests": len(times),
                "seconds": _percentiles(seconds),
                "all": [round(one, 3) for one in seconds],
            },
            card_used_mib={str(gpu): memory.used >> 20 for gpu, memory in cards.items()},
        )


if __name__ == "__main__":
    end_orderly_on_terminate()
    typer.run(main)
