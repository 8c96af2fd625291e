"""A server that is told to stop finishes what it has, and refuses what comes then."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton

from intaglio.contract.config import Deployment
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio.triton_models.stopping import REFUSAL
from intaglio_client import NO_RETRIES, Client, Stopping

from .streams import PlainStream, streamed, unary
from .test_metrics import metrics_of_url
from .test_reload import ADMITS, wait_for
from .test_serve_command import command
from .test_stream import ENDLESS

pytestmark = pytest.mark.slow
RUNNING: Any = {"prompt": "a person in a room", "seed": 3, "steps": 60}
WAITING: Any = {"prompt": "a person waving", "seed": 4, "steps": 4, "priority": "batch"}
NEW: Any = {"prompt": "a person waving", "steps": 1}
WRONG: Any = NEW | {"steps": 151}
"""Is refused at any time, and draws nothing."""


@dataclass
class Serving:
    """`intaglio serve` in a process of its own."""

    process: subprocess.Popen[str]
    grpc: str
    http: str
    metrics: str

    def status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"{self.http}/{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def refuses(self) -> bool:
        """Whether both public models refuse everything."""
        with pytest.raises(triton.InferenceServerException) as refused:
            unary(self.grpc, **WRONG)
        return [refused.value.message(), streamed(self.grpc, **WRONG).error] == [REFUSAL] * 2


@contextmanager
def serving(deployment: Deployment, folder: Path) -> Iterator[Serving]:
    words = command(deployment, f"--log={folder / 'triton.log'}", "--json")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            at = json.loads(process.stdout.readline())
            yield Serving(process, at["grpc"], at["http"], at["metrics"].split("/")[2])
        finally:
            process.kill()


def test_what_it_has_is_finished_and_what_comes_is_refused(
    server: Server, miniature: Deployment, tmp_path: Path
) -> None:
    """Nothing is asked twice, except by our client of two servers."""
    expected = {asked["seed"]: unary(server.grpc_url, **asked) for asked in (RUNNING, WAITING)}
    with serving(miniature, tmp_path) as stopping, ThreadPoolExecutor(3) as pool:
        assert stopping.status(ADMITS) == 200
        with PlainStream(stopping.grpc, **RUNNING) as stream:
            seen = stream.until("progress")
            streams = pool.submit(streamed, stopping.grpc, **WAITING)
            unaries = [pool.submit(unary, stopping.grpc, **WAITING) for _ in range(2)]
            wait_for(lambda: metrics_of_url(stopping.metrics).get("queue_depth") == 3)
            stopping.process.send_signal(signal.SIGTERM)
            wait_for(stopping.refuses)
            assert stopping.status(ADMITS) == 400
            assert stopping.status("v2/health/live") == 200
            with Client(stopping.grpc, retries=NO_RETRIES) as client, pytest.raises(Stopping):
                client.generate(**NEW)
            with pytest.raises(triton.InferenceServerException) as refused:
                unary(stopping.grpc, **NEW)
            assert refused.value.status() == "StatusCode.UNAVAILABLE"
            with Client([stopping.grpc, server.grpc_url], retries=NO_RETRIES) as client:
                assert client.generate(**NEW).data, "the other one draws it, although it has no seed"
            with Client([stopping.grpc, server.grpc_url], retries=NO_RETRIES) as client:
                assert client.stream(**NEW).result()[0].data
            assert stopping.process.poll() is None, "it still draws"
            while stream.next_into(seen):
                pass
        assert (seen.error, seen.images) == ("", expected[3])
        assert (streams.result().error, streams.result().images) == ("", expected[4])
        assert [asked.result() for asked in unaries] == [expected[4]] * 2
        assert stopping.process.wait(60) == 0
        assert stopping.process.stderr is not None
        assert stopping.process.stderr.read().splitlines()[-1] == "stopped"


def test_a_second_signal_ends_what_runs(miniature: Deployment, tmp_path: Path) -> None:
    with serving(miniature, tmp_path) as stopping, PlainStream(stopping.grpc, **ENDLESS) as stream:
        stream.until("progress")
        stopping.process.send_signal(signal.SIGTERM)
        wait_for(stopping.refuses)
        stopping.process.send_signal(signal.SIGTERM)
        assert stopping.process.wait(20) == 0
        seen = stream.until("result")
    assert seen.images == []
    assert seen.error


def test_what_is_not_over_in_time_is_ended(miniature: Deployment, tmp_path: Path) -> None:
    reports: list[str] = []
    server = Server(miniature, endpoints=Endpoints(), log=tmp_path / "triton.log", report=reports.append)
    server.settings = replace(server.settings, drain_seconds=2)
    with server, PlainStream(server.grpc_url, **ENDLESS) as stream:
        stream.until("progress")
        server.request_stop()
        started = time.monotonic()
        server.drain()
        server.close()
        took = time.monotonic() - started
        seen = stream.until("result")
    assert took > 2
    assert seen.images == []
    assert reports[-1] == "2 s are over; what still ran was ended"
