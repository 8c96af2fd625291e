"""Several real servers of the miniature: processes that may die, stop and come back at the same address."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from intaglio.contract.config import Deployment
from intaglio.serving.endpoints import Endpoints, choose_ports

from ..serving.test_metrics import metrics_of_url

__all__ = ["Replica", "fleet"]


class Replica:
    """`intaglio serve` with its own ports and log, and `words` for all of them."""

    def __init__(self, deployment: Deployment, folder: Path, number: int, words: Sequence[str] = ()) -> None:
        self.number = number
        self.endpoints = choose_ports(Endpoints())
        self.began = 0.0
        """When it was started the last time, as `time.time` has it."""
        self._config = deployment.folder / f"{deployment.name}.yaml"
        self._words = words
        self._log = folder / f"triton-{number}.log"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        ports = [f"--{name}-port={port}" for name, port in self.endpoints.ports.items()]
        command = [sys.executable, "-m", "intaglio", "serve", str(self._config), *ports, *self._words]
        self.began = time.time()
        self._process = subprocess.Popen(
            [*command, f"--log={self._log}", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        assert json.loads(self._process.stdout.readline())["grpc"] == self.endpoints.url("grpc")

    def kill(self) -> None:
        """End it with all its processes, as a machine that fails does."""
        assert self._process is not None
        tree = [
            *psutil.Process(self._process.pid).children(recursive=True),
            psutil.Process(self._process.pid),
        ]
        for process in tree:
            process.send_signal(signal.SIGSTOP)  # so that none of them tells a client that another is gone
        for process in tree:
            process.kill()
        self._process.wait(30)
        psutil.wait_procs(tree, timeout=30)

    def stop(self) -> int:
        """Drain it; its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(120)

    def metrics(self) -> dict[str, float]:
        """Our metrics, without the prefix."""
        return metrics_of_url(self.endpoints.url("metrics"))

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def fleet(
    deployment: Deployment, folder: Path, *, size: int, words: Sequence[str] = ()
) -> Iterator[list[Replica]]:
    """`size` servers, ready."""
    replicas = [Replica(deployment, folder, number, words) for number in range(size)]
    try:
        with ThreadPoolExecutor(size) as pool:
            list(pool.map(Replica.start, replicas))
        yield replicas
    finally:
        with ThreadPoolExecutor(size) as pool:
            list(pool.map(Replica.close, replicas))


def status_of(url: str) -> int:
    """The status of an HTTP answer; 0 where there is none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
