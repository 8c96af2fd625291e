"""Many streams, and streams that end in every way at any time; `stream_load` has the long forms."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from intaglio.serving.server import Server

from ..growth import least_growth
from .stream_load import REQUESTS, Happened, all_actions, cancelled_streams, footprint, many_clients
from .streams import streamed
from .test_metrics import metrics_of

pytestmark = pytest.mark.long

GROWTH = 4 << 20
"""Bytes that any process may grow by in the better of two rounds of cancelled streams: 11 KiB a stream."""


def wait_until_idle(server: Server) -> None:
    until = time.monotonic() + 30
    while metrics_of(server)["running"] or metrics_of(server)["queue_depth"]:
        assert time.monotonic() < until, "something is still drawn"
        time.sleep(0.1)


def judge(happened: Happened, server: Server, *, threads: int) -> None:
    assert happened.wrong == []
    wait_until_idle(server)
    time.sleep(1)
    assert footprint(server.process.pid).threads <= threads + 4, "Triton adds a few of its own"


def test_a_hundred_clients_lose_nothing(server: Server) -> None:
    """More than may wait: some are refused, and come again when the server says."""
    asked = {"prompt": "a person in a room", "steps": 1, "width": 256, "height": 192}
    many_clients(server.grpc_url, server.process.pid, clients=8, seconds=0, **asked)
    threads = footprint(server.process.pid).threads
    happened = many_clients(server.grpc_url, server.process.pid, clients=100, seconds=0, **asked)
    assert happened.outcomes["result"] == 100
    judge(happened, server, threads=threads)


def test_whatever_clients_do_every_picture_is_its_reference(server: Server) -> None:
    all_actions(server.grpc_url, clients=8, actions=8, seconds=5)
    threads = footprint(server.process.pid).threads
    before = metrics_of(server)["requests_failed_total"]  # other tests share the server
    happened = all_actions(server.grpc_url, clients=8, actions=40, seconds=15)
    assert happened.outcomes.total() >= 20
    judge(happened, server, threads=threads)
    failed = metrics_of(server)["requests_failed_total"] - before
    assert failed == 0


def test_a_thousand_cancelled_streams_leave_nothing(server: Server) -> None:
    """Cancelled before anything was heard of them, while they waited, and while they were drawn."""
    url = server.grpc_url
    expected = streamed(url, **REQUESTS[0]).images
    cancelled_streams(url, count=250)  # what Triton and the allocators keep of the first ones stays
    wait_until_idle(server)
    before, counted = footprint(server.process.pid), metrics_of(server)
    sizes = [server.process.resident_bytes()]
    ended: Counter[str] = Counter()
    for _ in range(2):
        ended += cancelled_streams(url, count=375)
        wait_until_idle(server)
        sizes.append(server.process.resident_bytes())
    assert ended.total() == 750
    assert set(ended) <= {"cancelled", "refused"}, "those that are cancelled leave the queue after a while"
    assert ended["cancelled"] > 250
    until = time.monotonic() + 30
    while (after := footprint(server.process.pid)).threads > before.threads + 4 or (
        after.files > before.files + 4
    ):
        assert time.monotonic() < until, f"threads or files are left: {after}, before {before}"
        time.sleep(0.1)
    now = metrics_of(server)
    grown = least_growth(sizes)
    assert {name: size for name, size in grown.items() if size > GROWTH} == {}, sizes
    for kind in ("failed", "late"):
        assert now[f"requests_{kind}_total"] == counted[f"requests_{kind}_total"]
    assert now["requests_cancelled_total"] > counted["requests_cancelled_total"]
    assert streamed(url, **REQUESTS[0]).images == expected
