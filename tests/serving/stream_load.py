"""Load on `sdxl_stream`: many clients, and clients that do anything at any time.

Tests run the short forms. The long ones, against a server of this machine:

    python -m tests.serving.stream_load clients --clients 100 --seconds 120
    python -m tests.serving.stream_load actions --clients 8 --seconds 60 --actions 300
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import psutil
import yaml
from tritonclient.grpc import service_pb2_grpc

from intaglio.contract.config import load_deployment
from intaglio.contract.models import SDXL_STREAM
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio_client.connections.requests import Request
from intaglio_client.parameters import tensors_from_parameters

from .streams import Ended, PlainStream, pixels_of, streamed, unary

__all__ = [
    "Footprint",
    "Happened",
    "all_actions",
    "cancelled_streams",
    "copied_deployment",
    "footprint",
    "many_clients",
]

ROOT: Final = Path(__file__).parents[2]
_RETRY = re.compile(r"try again in (\d+) s")
_SMALL: Final = {"width": 256, "height": 192}


@dataclass(frozen=True)
class Footprint:
    """What Triton and its stubs take."""

    mib: float
    threads: int
    files: int


def footprint(pid: int) -> Footprint:
    """Of the process `pid` and its descendants; shared memory counts once a process that maps it."""
    found = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return Footprint(
        mib=sum(process.memory_info().rss for process in found) / 2**20,
        threads=sum(process.num_threads() for process in found),
        files=sum(process.num_fds() for process in found),
    )


@dataclass
class Happened:
    """How requests ended; `wrong` is what must not happen."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    footprints: list[Footprint] = field(default_factory=list)
    took: float = 0.0
    """Seconds from the first action to the end of the last."""


def many_clients(
    url: str, pid: int, *, clients: int, seconds: float, least: int = 1, **asked: Any
) -> Happened:
    """`clients` stream pictures at the same time for `seconds`, and each at least `least` pictures.

    A client that is refused comes again when the server says.
    """
    happened = Happened()
    until = time.monotonic() + seconds
    over = threading.Event()

    def client(number: int) -> None:
        drawn = 0
        while time.monotonic() < until or drawn < least:
            started = time.perf_counter()
            ended = streamed(url, seed=number, **asked)
            happened.outcomes[ended.outcome] += 1
            if hint := _RETRY.search(ended.error):
                time.sleep(min(float(hint[1]), 5) * random.uniform(0.5, 1.5))
            elif ended.outcome == "result":
                drawn += 1
                happened.seconds.append(time.perf_counter() - started)
            else:
                happened.wrong.append(f"client {number}: {ended.error or ended.events}")
                return

    def look() -> None:
        while not over.wait(max(seconds, 5) / 20):
            with contextlib.suppress(psutil.Error):  # it was restarted: the requests say so
                happened.footprints.append(footprint(pid))

    looking = threading.Thread(target=look)
    if seconds:
        looking.start()
    with ThreadPoolExecutor(clients) as pool:
        for task in [pool.submit(client, number) for number in range(clients)]:
            task.result()
    over.set()
    if not seconds:  # nobody looks at a moment
        return happened
    looking.join()
    time.sleep(1)
    with contextlib.suppress(psutil.Error):
        happened.footprints.append(footprint(pid))
    return happened


REQUESTS: Final[tuple[dict[str, Any], ...]] = (
    {"prompt": "a person in a room", "seed": 1, "steps": 1, **_SMALL},
    {"prompt": "a person waving", "seed": 2, "steps": 4, "slice_steps": 1, **_SMALL},
    {"prompt": "a beach", "seed": 3, "steps": 2, "loras": [{"id": "night", "weight": 0.8}], **_SMALL},
    {"prompt": "a beach", "seed": 4, "steps": 2, "loras": [{"id": "mara", "weight": 1.0}], **_SMALL},
    {"prompt": "a room", "seed": 5, "steps": 2, "scheduler": "euler_a", "preview": 64, **_SMALL},
)
"""Short and small: what is tested is how requests end, and many of them."""
ALLOWED: Final = {
    "stream": {"result", "refused"},
    "unary": {"result", "refused"},
    "batch": {"result", "refused", "deadline"},
    "cancel": {"cancelled", "result", "refused"},
    "deadline": {"deadline", "result", "refused"},
    "kill": {"killed"},
}
"""How a request of each kind may end."""
WEIGHTS: Final = {"stream": 8, "unary": 3, "batch": 3, "cancel": 6, "deadline": 3, "kill": 1}


def all_actions(
    url: str, *, clients: int, actions: int, seconds: float, between: Callable[[], None] | None = None
) -> Happened:
    """`clients` do `actions` things or as many as fit into `seconds`; `between` runs beside them.

    Every picture is compared with that of an undisturbed request.
    """
    expected = [pixels_of(streamed(url, **request).images) for request in REQUESTS]
    happened = Happened()
    left = iter(range(actions))
    lock = threading.Lock()
    started = time.monotonic()
    until = started + seconds

    def client(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < until:
            with lock:
                if next(left, None) is None:
                    return
            kind = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            index = chance.randrange(len(REQUESTS))
            ended = _act(url, kind, REQUESTS[index], chance)
            with lock:
                happened.outcomes[f"{kind}: {ended.outcome}"] += 1
                if ended.outcome not in ALLOWED[kind]:
                    happened.wrong.append(f"{kind} {index}: {ended.error or ended.events}")
                if ended.images and pixels_of(ended.images) != expected[index]:
                    happened.wrong.append(f"{kind} {index}: another picture")

    with ThreadPoolExecutor(clients + 1) as pool:
        tasks = [pool.submit(client, number) for number in range(clients)]
        if between is not None:
            tasks.append(pool.submit(between))
        for task in tasks[:clients]:
            task.result()
        happened.took = time.monotonic() - started
        for task in tasks:
            task.result()
    return happened


def cancelled_streams(url: str, *, count: int, together: int = 16) -> Counter[str]:
    """Begin `count` streams and cancel each at another moment; how they ended.

    A server notices so many cancelled streams a second, and until then they have their places. A client that
    is refused waits a little: else a fast one would be refused again and again.
    """
    return asyncio.run(_cancelled_streams(url, count, together))


async def _cancelled_streams(url: str, count: int, together: int) -> Counter[str]:
    ended: Counter[str] = Counter()
    left = iter(range(count))
    tensors = tensors_from_parameters(
        "a person in a room", {"steps": 8, "slice_steps": 1, **_SMALL}, model=SDXL_STREAM
    )
    message = Request(model=SDXL_STREAM, tensors=tensors).message()

    async def client(stub: Any) -> None:
        for number in left:
            call = stub.ModelStreamInfer(iter([message]), timeout=60)
            said = ""
            for _ in range((0, 1, 1, 3)[number % 4]):  # 0: before anything was heard of it
                response = await call.read()
                said = response.error_message
                if said:
                    break
            call.cancel()
            is_refused = "Exceeds maximum queue size" in said
            ended["refused" if is_refused else said or "cancelled"] += 1
            if is_refused:
                await asyncio.sleep(0.5)

    async with grpc.aio.insecure_channel(url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        await asyncio.gather(*(client(stub) for _ in range(together)))
    return ended


def _act(url: str, kind: str, request: dict[str, Any], chance: random.Random) -> Ended:
    if kind == "kill":
        return _killed(url)
    if kind == "unary":
        return _unary(url, request)
    if kind == "batch":
        return streamed(url, **request, priority="batch", queue_timeout=chance.uniform(0.2, 3))
    if kind == "deadline":
        return streamed(url, **request, deadline=chance.uniform(0.1, 1.0))
    ended = Ended()
    news = chance.randrange(4) if kind == "cancel" else -1
    with PlainStream(url, **request) as stream:
        while len(ended.events) != news and stream.next_into(ended):
            pass
    return ended


def _unary(url: str, request: dict[str, Any]) -> Ended:
    own = {name: value for name, value in request.items() if name not in ("slice_steps", "preview")}
    try:
        return Ended(images=unary(url, **own))
    except Exception as error:
        return Ended(error=str(error))


def _killed(url: str) -> Ended:
    """A process that is killed while it streams."""
    values = tensors_from_parameters("a person in a room", {"steps": 40, **_SMALL}, model=SDXL_STREAM)
    command = [sys.executable, str(Path(__file__).with_name("killed_client.py")), url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(Request(model=SDXL_STREAM, tensors=values).message().SerializeToString())
        process.stdin.close()
        begun = process.stdout.readline()
        process.kill()
    return Ended(error="killed" if begun else "refused before it was killed")


def copied_deployment(folder: Path, *, queue_size: int) -> Path:
    """The miniature under a name of its own, which can be built again and again."""
    values = yaml.safe_load((ROOT / "configs/miniature.yaml").read_text())
    for place in (values["base"][0], *values["controlnets"].values()):
        place["folder"] = str(ROOT / "configs" / place["folder"])
    for name in ("registry", "presets", "poses"):
        values[name] = str(ROOT / "configs" / values[name])
    values |= {"build": str(folder / "build"), "server": {"queue_size": queue_size}}
    del values["detectors"]
    (folder / "build").mkdir()
    (folder / "build/.stages").symlink_to(ROOT / "build/.stages")
    path = folder / "load.yaml"
    path.write_text(yaml.safe_dump(values))
    _build(path)
    return path


def _build(path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "intaglio", "build", str(path)], check=True, stdout=subprocess.DEVNULL
    )


def _reloads(path: Path, server: Server, *, times: int, pause: float) -> None:
    """Build `path` with another limit, which changes no picture, and have it served."""
    for number in range(times):
        time.sleep(pause)
        values = yaml.safe_load(path.read_text())
        values["limits"] = {"images": 3 + number % 2}
        path.write_text(yaml.safe_dump(values))
        _build(path)
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "intaglio", "reload", str(path)], check=True)
        print(f"reloaded in {time.perf_counter() - started:.1f} s", flush=True)


def _report(happened: Happened, footprints: Iterable[Footprint]) -> None:
    print(json.dumps(happened.outcomes, indent=1))
    if happened.seconds:
        ordered = sorted(happened.seconds)
        print(f"seconds a picture: p50 {ordered[len(ordered) // 2]:.2f}, longest {ordered[-1]:.2f}")
    for one in footprints:
        print(f"{one.mib:.0f} MiB, {one.threads} threads, {one.files} files")
    for line in happened.wrong:
        print("WRONG", line)


def _milestones(text: str) -> None:
    if not text.startswith("starting"):
        print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("load", choices=("clients", "actions"))
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--actions", type=int, default=300)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="intaglio-load-"))
    try:
        path = copied_deployment(folder, queue_size=128 if given.load == "clients" else 32)
        with Server(load_deployment(path), endpoints=Endpoints(), report=_milestones) as server:
            supervising = threading.Thread(target=server.supervise, daemon=True)
            supervising.start()
            pid = server.process.pid
            url = server.grpc_url
            if given.load == "clients":
                asked = {"prompt": "a person in a room", "steps": 2, "width": 256, "height": 192}
                happened = many_clients(url, pid, clients=given.clients, seconds=given.seconds, **asked)
                _report(happened, happened.footprints[:: max(1, len(happened.footprints) // 8)])
            else:
                before = footprint(pid)
                happened = all_actions(
                    url,
                    clients=given.clients,
                    actions=given.actions,
                    seconds=given.seconds,
                    between=lambda: _reloads(path, server, times=2, pause=given.seconds / 6),
                )
                print(f"{happened.outcomes.total()} actions in {happened.took:.1f} s, beside two reloads")
                time.sleep(2)
                _report(happened, [before, footprint(pid)])
            server.request_stop()
            supervising.join()
        return 1 if happened.wrong else 0
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
