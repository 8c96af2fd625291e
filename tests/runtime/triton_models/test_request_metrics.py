"""What the queue and the thread that draws become for Prometheus."""

from __future__ import annotations

import pytest

from intaglio.errors import Cancelled, DeadlineExceeded, IntaglioError, SwapFailed
from intaglio.triton_models.request_metrics import Outcome, RequestCounts, RequestMetrics, outcome_of

from .metric_fakes import Backend, shown


def values() -> dict[str, float]:
    return {name.removeprefix("intaglio_"): value for (name, _), value in shown().items()}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Cancelled(""), "cancelled"),
        (DeadlineExceeded(""), "late"),
        (SwapFailed(""), "failed"),
        (IntaglioError(""), "failed"),
        (ValueError(""), "failed"),
    ],
)
def test_a_cancelled_request_has_not_failed(error: Exception, outcome: str) -> None:
    assert outcome_of(error) == outcome


def test_every_request_ends_in_one_way() -> None:
    counts, metrics = RequestCounts(), RequestMetrics(Backend)
    ended: list[tuple[Outcome, int]] = [
        ("finished", 0),
        ("cancelled", 7),
        ("late", 2),
        ("late", 1),
        ("failed", 4),
    ]
    for outcome, steps_left in ended:
        counts.ended(outcome, steps_left=steps_left)
    counts.refused()
    metrics.report(counts.now, depth=0, oldest_wait=0.0)
    found = values()
    assert found["requests_total"] == 5
    assert [
        found[f"requests_{outcome}_total"] for outcome in ("finished", "failed", "cancelled", "late")
    ] == [
        1,
        1,
        1,
        2,
    ]
    assert found["requests_refused_total"] == 1
    assert found["steps_saved_total"] == 10, "a failure saves nothing"


def test_seconds_add_up() -> None:
    counts, metrics = RequestCounts(), RequestMetrics(Backend)
    for waited in (0.5, 0.25):
        counts.waited(waited)
    counts.computed(2.0)
    counts.stepped(5, 1.0)
    counts.stepped(0, 0.0)
    counts.stepped(1, 0.5)
    metrics.report(counts.now, depth=3, oldest_wait=4.0)
    metrics.report_drawing(counts.now, running=2)
    found = values()
    assert (found["queue_depth"], found["queue_oldest_wait_seconds"], found["running"]) == (3, 4.0, 2)
    assert (found["queue_seconds_total"], found["queue_longest_wait_seconds"]) == (0.75, 0.5)
    assert (found["compute_seconds_total"], found["steps_total"], found["step_seconds_total"]) == (
        2.0,
        6,
        1.5,
    )
    assert found["step_seconds"] == 0.5
