"""Load beyond capacity: an open loop that asks for several times what the server can draw.

A test runs the short form. The long one, with a server of its own on this machine:

    python -m tests.serving.overload --seconds 180 --factor 10
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2_grpc

from intaglio.contract.config import load_deployment
from intaglio.contract.models import SDXL, SDXL_STREAM
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio_client import NO_RETRIES, Client, QueueFull
from intaglio_client.connections.requests import Request
from intaglio_client.parameters import tensors_from_parameters

from .stream_load import Footprint, copied_deployment, footprint
from .test_metrics import metrics_of

__all__ = ["QUEUE", "Overload", "overload"]

QUEUE: Final = 4
ASKED: Final[dict[str, Any]] = {"steps": 6, "width": 256, "height": 192, "seed": 7}
_PROMPT: Final = "a person in a room"
_CAPACITY_PICTURES: Final = 8
_LOOK_SECONDS: Final = 0.5
_REFUSED: Final = "Exceeds maximum queue size"
_ANSWER_SECONDS: Final = 120.0
_SETTLED: Final = 5
"""Pictures one after another, with nobody beside them, that say what is usual."""


@dataclass
class Overload:
    """What happened; times in seconds."""

    capacity: float
    """Pictures a second with as many clients as may wait."""
    rate: float = 0.0
    """Requests a second that were sent."""
    usual_before: float = 0.0
    """Seconds of a picture while nobody else asks, before the load."""
    usual_after: float = 0.0
    """The same once the load is over."""
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    refusals: list[float] = field(default_factory=list)
    pictures: list[float] = field(default_factory=list)
    depths: list[float] = field(default_factory=list)
    footprints: list[Footprint] = field(default_factory=list)
    recovered: float = 0.0
    """From the last request until a further one got its picture in no longer than twice `usual_after`."""

    @property
    def alone(self) -> float:
        """Seconds of a picture while nobody else asks: before the load or after it, whichever took longer."""
        return max(self.usual_before, self.usual_after)

    @property
    def summary(self) -> dict[str, Any]:
        """For people."""
        settled = self.footprints[len(self.footprints) // 4]
        return {
            "capacity": round(self.capacity, 2),
            "sent a second": round(self.rate, 1),
            "outcomes": dict(self.outcomes),
            "wrong": dict(self.wrong),
            "refused after": quantiles(self.refusals),
            "drawn after": quantiles(self.pictures),
            "deepest queue": max(self.depths),
            "MiB after a quarter, at the end": [round(settled.mib), round(self.footprints[-1].mib)],
            "threads": [settled.threads, self.footprints[-1].threads],
            "files": [settled.files, self.footprints[-1].files],
            "usual before, after": [round(self.usual_before, 2), round(self.usual_after, 2)],
            "recovered": round(self.recovered, 2),
        }


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the longest."""
    ordered = sorted(seconds)
    places = {"p50": 0.5, "p99": 0.99}
    found = {name: round(ordered[int(share * (len(ordered) - 1))], 3) for name, share in places.items()}
    return {**found, "longest": round(ordered[-1], 3)}


def overload(server: Server, *, seconds: float, factor: float) -> Overload:
    """Send `factor` times the capacity of `server` for `seconds`, half of it as streams."""
    with Client(server.grpc_url, deadline=_ANSWER_SECONDS) as client:
        client.generate(_PROMPT, **ASKED)
        usual = statistics.median(_seconds_of(client) for _ in range(_SETTLED))
        happened = asyncio.run(_loaded(server, usual, seconds=seconds, factor=factor))
    happened.footprints.append(footprint(server.process.pid))
    return happened


async def _recovery(server: Server) -> tuple[float, float]:
    """Seconds from now until a further request has got its picture in no more than twice the usual time, and
    the usual time. That is measured afterwards: the machine may have other work than before. Whether the
    server itself became slower, a comparison with the time before the load must say.
    """
    over = time.monotonic()
    times: list[tuple[float, float]] = []
    settled = 0
    with Client(server.grpc_url, deadline=_ANSWER_SECONDS, retries=NO_RETRIES) as client:
        while settled < _SETTLED:
            took = await asyncio.to_thread(_seconds_of, client)
            times.append((time.monotonic() - over, took))
            assert times[-1][0] < _ANSWER_SECONDS, "it has not recovered"
            measured = await asyncio.to_thread(metrics_of, server)
            is_alone = took < math.inf and not measured["queue_depth"] and not measured["running"]
            settled = settled + 1 if is_alone else 0
    usual = statistics.median(took for _, took in times[-_SETTLED:])
    return next(at for at, took in times if took <= 2 * usual), usual


def _seconds_of(client: Client) -> float:
    """Seconds of a picture; endless where it is refused."""
    started = time.perf_counter()
    try:
        client.generate(_PROMPT, **ASKED)
    except QueueFull:
        return math.inf
    return time.perf_counter() - started


async def _loaded(server: Server, usual_before: float, *, seconds: float, factor: float) -> Overload:
    async with grpc.aio.insecure_channel(server.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        happened = Overload(capacity=await _capacity(stub), usual_before=usual_before)
        happened.rate = factor * happened.capacity
        looking = asyncio.create_task(_look(server, happened))
        started = time.monotonic()
        asked = []
        for number in range(int(happened.rate * seconds)):
            await asyncio.sleep(max(started + number / happened.rate - time.monotonic(), 0))
            asked.append(asyncio.create_task(_ask(stub, happened, stream=bool(number % 2))))
        happened.rate = len(asked) / (time.monotonic() - started)
        recovery = asyncio.create_task(_recovery(server))
        await asyncio.gather(*asked)
        happened.recovered, happened.usual_after = await recovery
        looking.cancel()
        return happened


async def _capacity(stub: Any) -> float:
    """Pictures a second while QUEUE requests are always there."""
    found = Overload(capacity=0.0)
    started = time.monotonic()

    async def client() -> None:
        for _ in range(_CAPACITY_PICTURES // QUEUE):
            await _ask(stub, found, stream=False)

    await asyncio.gather(*(client() for _ in range(QUEUE)))
    assert not found.wrong, found.wrong
    return len(found.pictures) / (time.monotonic() - started)


async def _ask(stub: Any, happened: Overload, *, stream: bool) -> None:
    started = time.monotonic()
    try:
        error = await (_streamed(stub) if stream else _unary(stub))
    except grpc.aio.AioRpcError as failed:
        error = str(failed.details())
    took = time.monotonic() - started
    kind = "stream" if stream else "unary"
    if not error:
        happened.outcomes[f"{kind} drawn"] += 1
        happened.pictures.append(took)
    elif _REFUSED in error:
        happened.outcomes[f"{kind} refused"] += 1
        happened.refusals.append(took)
    else:
        happened.wrong[error] += 1


async def _unary(stub: Any) -> str:
    message = Request(model=SDXL, tensors=tensors_from_parameters(_PROMPT, ASKED)).message()
    answer = await stub.ModelInfer(message, timeout=_ANSWER_SECONDS)
    return "" if answer.raw_output_contents else "no picture"


async def _streamed(stub: Any) -> str:
    tensors = tensors_from_parameters(_PROMPT, ASKED, model=SDXL_STREAM)
    message = Request(model=SDXL_STREAM, tensors=tensors).message()

    async def messages() -> AsyncIterator[Any]:
        yield message

    drawn = False
    async for response in stub.ModelStreamInfer(messages(), timeout=_ANSWER_SECONDS):
        if response.error_message:
            return str(response.error_message)
        drawn |= any(output.name == "image" for output in response.infer_response.outputs)
    return "" if drawn else "no picture"


async def _look(server: Server, happened: Overload) -> None:
    while True:
        measured = await asyncio.to_thread(metrics_of, server)
        happened.depths.append(measured["queue_depth"])
        happened.footprints.append(await asyncio.to_thread(footprint, server.process.pid))
        await asyncio.sleep(_LOOK_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--factor", type=float, default=10)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="intaglio-overload-"))
    try:
        path = copied_deployment(folder, queue_size=QUEUE)
        with Server(load_deployment(path), endpoints=Endpoints()) as server:
            happened = overload(server, seconds=given.seconds, factor=given.factor)
        print(json.dumps(happened.summary, indent=1))
        return 1 if happened.wrong else 0
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
