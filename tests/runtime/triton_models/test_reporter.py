"""Metrics are reported while nothing is answered, and no error of them reaches a request."""

from __future__ import annotations

import time
import weakref
from typing import Any

import pytest

from intaglio.triton_models import reporter
from intaglio.triton_models.reporter import Reporter


def test_reports_by_itself_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "_EVERY_SECONDS", 0.01)
    reports: list[int] = []
    made: list[int] = []

    def make() -> Any:
        made.append(len(made))
        return None if len(made) < 3 else lambda: reports.append(1)

    running = Reporter(make, failed=lambda: None)
    running.start()
    deadline = time.monotonic() + 5
    while len(reports) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.close()
    after = len(reports)
    time.sleep(0.05)
    assert len(reports) == after
    assert len(made) == 3, "asked until there is a report, and not again"


def test_errors_stay_here() -> None:
    failed: list[int] = []

    def report() -> None:
        raise RuntimeError("no metrics")

    running = Reporter(lambda: report, failed=lambda: failed.append(1))
    running.report()
    running.report()
    running.close()
    assert len(failed) == 2


def test_nothing_is_left_of_the_metrics_once_it_is_closed() -> None:
    """Whoever reports later makes no new ones."""

    class Metrics:
        def __call__(self) -> None: ...

    made: list[weakref.ref[Metrics]] = []

    def make() -> Metrics:
        metrics = Metrics()
        made.append(weakref.ref(metrics))
        return metrics

    running = Reporter(make, failed=lambda: None)
    running.report()
    assert [one() is not None for one in made] == [True]
    running.close()
    running.report()
    assert [one() for one in made] == [None]
