"""What streaming costs, and how soon events come: figures for docs/operating.md.

    python -m tests.serving.stream_cost --pairs 15

`unary` and `stream` are asked alternately, so that a busy machine slows both. CPU time is that of Triton and
its models, which other processes do not change. The machine should be calm for the rest.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

from intaglio.contract.config import load_deployment
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server

from .streams import Ended, PlainStream, streamed, unary

ROOT: Final = Path(__file__).parents[2]
PICTURE: Final[dict[str, Any]] = {"prompt": "a person in a room", "seed": 3, "steps": 30}
LONG: Final[dict[str, Any]] = PICTURE | {"steps": 150}
SHORT: Final[dict[str, Any]] = PICTURE | {"steps": 1}


def cpu_seconds(pid: int) -> float:
    """User and system time of the process `pid` and its descendants."""
    found = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in found)


def interval(values: list[float]) -> str:
    """The median and its 95 % bootstrap interval."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(2000))
    return f"{statistics.median(values):.4f} ({medians[50]:.4f} to {medians[-51]:.4f})"


def cost(server: Server, *, pairs: int) -> None:
    """Print the ratio of a streamed to a unary picture, within pairs."""

    def timed(ask: Callable[[], object]) -> tuple[float, float]:
        before, started = cpu_seconds(server.process.pid), time.perf_counter()
        ask()
        wall = time.perf_counter() - started
        return wall, cpu_seconds(server.process.pid) - before

    kinds: dict[str, Callable[[], object]] = {
        "unary": lambda: unary(server.grpc_url, **PICTURE),
        "stream": lambda: streamed(server.grpc_url, **PICTURE),
    }
    ratios: list[tuple[float, float]] = []
    unaries: list[tuple[float, float]] = []
    for number in range(-2, pairs):
        order = list(kinds) if number % 2 else list(reversed(kinds))
        took = {kind: timed(kinds[kind]) for kind in order}
        if number >= 0:
            unaries.append(took["unary"])
            ratios.append((took["stream"][0] / took["unary"][0], took["stream"][1] / took["unary"][1]))
    for index, name in enumerate(("seconds", "CPU seconds")):
        median = statistics.median(one[index] for one in unaries)
        print(f"stream to unary, {name}: {interval([one[index] for one in ratios])}; unary {median:.3f} s")


def first_events(server: Server, *, times: int) -> None:
    """Print how long after a request to an idle server its first event comes."""
    found = [streamed(server.grpc_url, **SHORT) for _ in range(times)]
    waits = sorted(1000 * ended.at[0] for ended in found)
    print(f"first event, idle server: median {statistics.median(waits):.0f} ms, longest {waits[-1]:.0f} ms")


def cancels(server: Server, *, times: int) -> None:
    """Print how long after a cancel the picture that waited has its turn."""
    beyond: list[float] = []
    for _ in range(times):
        with PlainStream(server.grpc_url, **LONG) as running:
            seen = running.until("progress")
            with PlainStream(server.grpc_url, **LONG | {"priority": "batch"}) as waiting:
                waiting.until("queued")
                while len(seen.of("progress")) < 3:
                    running.next_into(seen)
                time.sleep(random.uniform(0, slice_of(seen)))
                cancelled = time.perf_counter()
                running.cancel()
                waiting.until("progress")
                beyond.append(time.perf_counter() - cancelled - slice_of(seen))
    beyond = sorted(1000 * seconds for seconds in beyond)
    print(
        f"from a cancel to the next picture's first event, beyond a slice of {1000 * slice_of(seen):.0f} ms: "
        f"median {statistics.median(beyond):.0f} ms, longest {beyond[-1]:.0f} ms"
    )


def slice_of(ended: Ended) -> float:
    """Seconds between the last two events of progress."""
    at = [at for event, at in zip(ended.events, ended.at, strict=True) if event["kind"] == "progress"]
    return at[-1] - at[-2]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--times", type=int, default=20)
    given = parser.parse_args()
    deployment = load_deployment(ROOT / "configs/miniature.yaml")
    log = Path(tempfile.mkdtemp(prefix="intaglio-cost-")) / "triton.log"
    with Server(deployment, endpoints=Endpoints(), log=log) as server:
        cost(server, pairs=given.pairs)
        first_events(server, times=given.times)
        cancels(server, times=given.times)


if __name__ == "__main__":
    main()
