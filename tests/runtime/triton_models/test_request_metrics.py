"""What the queue and the thread that answers become for Prometheus."""

from __future__ import annotations

import time

import pytest

from intaglio.triton_models.request_metrics import RequestCounts, RequestMetrics

from .metric_fakes import Backend, shown


def test_counts_are_the_wall_clocks() -> None:
    counts = RequestCounts()
    for waited in (0.5, 0.25):
        counts.begin(waited)
        assert counts.now.running
        time.sleep(0.05)
        counts.end()
    now = counts.now
    assert (now.requests, now.queue_seconds, now.longest_wait, now.running) == (2, 0.75, 0.5, False)
    assert now.compute_seconds == pytest.approx(0.1, abs=0.05)


def test_metrics_follow_the_counts() -> None:
    counts = RequestCounts()
    metrics = RequestMetrics(Backend)
    counts.begin(2.0)
    metrics.report(counts.now, depth=3, oldest_wait=4.0)
    values = {name.removeprefix("intaglio_"): value for (name, _), value in shown().items()}
    assert (values["queue_depth"], values["queue_oldest_wait_seconds"], values["running"]) == (3, 4.0, 1)
    assert (values["queue_seconds_total"], values["requests_total"]) == (2.0, 0)
    counts.end()
    metrics.report(counts.now, depth=0, oldest_wait=0.0)
    values = {name.removeprefix("intaglio_"): value for (name, _), value in shown().items()}
    assert (values["queue_depth"], values["queue_oldest_wait_seconds"], values["running"]) == (0, 0, 0)
    assert values["requests_total"] == 1
    assert values["queue_longest_wait_seconds"] == 2.0
    assert values["compute_seconds_total"] == counts.now.compute_seconds
