"""`intaglio serve` as users run it: killed parts come back, or it ends with an error; it never leaves
anything behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest

from intaglio.contract.config import Deployment
from intaglio.errors import IntaglioError
from intaglio_client import NO_RETRIES, Cancelled, Client, ServerError, Unavailable

from ..processes import commands_below
from .streams import PlainStream
from .test_stream import ENDLESS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]
SMALL: Any = {"width": 256, "height": 192, "steps": 1, "seed": 1}


@dataclass
class Serving:
    """A running `intaglio serve`."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Of gRPC, as it said."""
        return next(line for line in self.lines if line.startswith("grpc")).split()[1]

    def read_until(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if text in line:
                return
        raise AssertionError(f"ended without saying {text!r}: {self.lines}")

    def children(self) -> dict[str, psutil.Process]:
        """tritonserver, and every stub by its instance's name."""
        found = {}
        for child, command in commands_below(self.process.pid).items():
            stubs = [word for word in command if word.endswith("_0_0")]
            if command[0].endswith("tritonserver"):
                found["tritonserver"] = child
            elif stubs:  # neither: the launcher, on its way to becoming tritonserver
                found[stubs[0]] = child
        return found


@contextmanager
def serving(deployment: Deployment, *options: str, before: Sequence[str] = ()) -> Iterator[Serving]:
    config = deployment.folder / f"{deployment.name}.yaml"
    process = subprocess.Popen(
        [
            *before,
            sys.executable,
            "-m",
            "intaglio",
            "serve",
            str(config),
            "--http-port=0",
            "--grpc-port=0",
            "--metrics-port=0",
            *options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Serving(process)
    finally:
        process.kill()
        process.wait()


@contextmanager
def load(url: str, *, threads: int = 2) -> Iterator[list[IntaglioError | None]]:
    """Requests without a pause; the outcome of each, None where it got its image."""
    outcomes: list[IntaglioError | None] = []
    stop = threading.Event()

    def ask() -> None:
        with Client(url, deadline=60, retries=NO_RETRIES) as client:
            while not stop.is_set():
                try:
                    client.generate("a person in a room", **SMALL)
                except IntaglioError as error:
                    outcomes.append(error)
                    time.sleep(0.1)
                else:
                    outcomes.append(None)

    with ThreadPoolExecutor(threads) as pool:
        asking = [pool.submit(ask) for _ in range(threads)]
        try:
            yield outcomes
        finally:
            stop.set()
        for one in asking:
            one.result()


def wait_for(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_killed_parts_come_back_under_load_until_it_gives_up(miniature: Deployment) -> None:
    with serving(miniature, "--restarts=2") as running:
        running.read_until("Ctrl-C stops it")
        for victim in ("diffuse_0_0", "tritonserver"):
            with load(running.url) as outcomes:
                wait_for(lambda outcomes=outcomes: None in outcomes)  # type: ignore[misc]
                os.kill(running.children()[victim].pid, signal.SIGKILL)
                running.read_until("restart")
                running.read_until("ready")
                served = len(outcomes)
                wait_for(lambda outcomes=outcomes, served=served: None in outcomes[served:])  # type: ignore[misc]
            errors = [error for error in outcomes if error is not None]
            assert errors, "some request was on its way"
            assert all(isinstance(error, Unavailable | ServerError | Cancelled) for error in errors), {
                str(error) for error in errors
            }
        os.kill(running.children()["postprocess_0_0"].pid, signal.SIGKILL)
        running.read_until("the process of postprocess_0_0 died; given up after 2 restarts")
        assert running.process.wait(30) == 1


def test_stopped_while_it_starts(miniature: Deployment) -> None:
    with serving(miniature) as running:
        wait_for(lambda: "tritonserver" in running.children())
        running.process.terminate()
        assert running.process.wait(40) == 0


def test_a_second_signal_does_not_wait(miniature: Deployment) -> None:
    with serving(miniature) as running:
        running.read_until("Ctrl-C stops it")
        with PlainStream(running.url, **ENDLESS) as stream:
            seen = stream.until("progress")
            running.process.send_signal(signal.SIGINT)
            time.sleep(0.5)
            running.process.terminate()
            assert running.process.wait(20) == 0, "well within server.drain_seconds"
            while stream.next_into(seen):
                pass
        assert seen.error


def test_a_hang_up_stops_it_cleanly(miniature: Deployment) -> None:
    with serving(miniature) as running:
        running.read_until("Ctrl-C stops it")
        running.process.send_signal(signal.SIGHUP)
        running.read_until("stopped")
        assert running.process.wait(40) == 0


def test_with_nohup_it_goes_on_after_a_hang_up(miniature: Deployment) -> None:
    with serving(miniature, before=["nohup"]) as running:
        running.read_until("Ctrl-C stops it")
        running.process.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert running.process.poll() is None
        with Client(running.url, deadline=60, retries=NO_RETRIES) as client:
            client.generate("a person in a room", **SMALL)
        running.process.terminate()
        assert running.process.wait(40) == 0
