"""`intaglio serve` as users run it: killed parts come back, or it ends with an error; it never leaves anything behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from intaglio.config import Deployment
from intaglio.errors import IntaglioError
from intaglio.serving.process import Endpoints
from intaglio.serving.server import Server
from intaglio_client import Cancelled, Client, QueueFull, ServerError, Unavailable

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
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if child.status() != psutil.STATUS_ZOMBIE:
                command = child.cmdline()
                stubs = [word for word in command if word.endswith("_0_0")]
                if command and command[0].endswith("tritonserver"):
                    found["tritonserver"] = child
                elif stubs:  # neither: the launcher, on its way to becoming tritonserver
                    found[stubs[0]] = child
        return found


@contextmanager
def serving(deployment: Deployment, *options: str) -> Iterator[Serving]:
    config = deployment.folder / f"{deployment.name}.yaml"
    process = subprocess.Popen(
        [sys.executable, "-m", "intaglio", "serve", str(config), "--http-port=0", "--grpc-port=0", "--metrics-port=0", *options],
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
def load(url: str, *, threads: int = 3) -> Iterator[list[IntaglioError | None]]:
    """Requests without a pause; the outcome of each, None where it got its image."""
    outcomes: list[IntaglioError | None] = []
    stop = threading.Event()

    def ask() -> None:
        with Client(url, deadline=60) as client:
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


def test_killed_parts_come_back_under_load(miniature: Deployment) -> None:
    with serving(miniature) as running:
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
            assert all(isinstance(error, Unavailable | ServerError | Cancelled) for error in errors), {str(error) for error in errors}
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(30) == 0


def test_it_gives_up_with_an_error(miniature: Deployment) -> None:
    with serving(miniature, "--restarts=0") as running:
        running.read_until("Ctrl-C stops it")
        os.kill(running.children()["postprocess_0_0"].pid, signal.SIGKILL)
        running.read_until("the process of postprocess_0_0 died; given up after 0 restarts")
        assert running.process.wait(30) == 1


def test_stopped_while_it_starts(miniature: Deployment) -> None:
    with serving(miniature) as running:
        wait_for(lambda: "tritonserver" in running.children())
        running.process.terminate()
        assert running.process.wait(40) == 0


def test_a_second_signal_does_not_wait(miniature: Deployment) -> None:
    with serving(miniature) as running:
        running.read_until("Ctrl-C stops it")
        with ThreadPoolExecutor(1) as pool, Client(running.url) as client:
            asking = pool.submit(client.generate, "a person in a room", steps=100)
            time.sleep(1)
            running.process.terminate()
            time.sleep(0.5)
            running.process.terminate()
            assert running.process.wait(5) == 0
            with pytest.raises(IntaglioError):
                asking.result()


def test_a_full_queue_says_so(miniature: Deployment, tmp_path: Path) -> None:
    """A queue of one: some of many requests are refused at once, the others get their images."""
    shutil.copytree(miniature.build_folder, tmp_path / miniature.name, ignore=shutil.ignore_patterns("*.log"))
    for config in (tmp_path / miniature.name / "model_repository").glob("*/config.pbtxt"):
        config.write_text(config.read_text().replace(f"max_queue_size: {miniature.server.queue_size}", "max_queue_size: 1"))
    with Server(miniature.model_copy(update={"build": tmp_path}), endpoints=Endpoints()) as server:

        def ask(seed: int) -> bool:
            with Client(server.grpc_url) as client:
                try:
                    return bool(client.generate("a person in a room", **{**SMALL, "seed": seed, "steps": 5}).data)
                except QueueFull:
                    return False

        with ThreadPoolExecutor(8) as pool:
            answered = list(pool.map(ask, range(8)))
        assert True in answered
        assert False in answered
        assert ask(1), "the queue is empty again"
