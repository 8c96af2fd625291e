from __future__ import annotations

import random

import pytest

from intaglio.errors import ConfigError
from intaglio_client.bench.comparison import cells_of, compare_reports, data_of

from .runs import report_of, workload_of

WORKLOAD = workload_of(
    clients={"kind": "closed", "concurrency": [1, 2], "requests": 20},
    few={"kind": "closed", "concurrency": [1], "requests": 5},
)


def noisy(effect: float, seed: int) -> dict[str, object]:
    drawn = random.Random(seed)
    return report_of(
        WORKLOAD, lambda place: (0.5 + 0.1 * (place % 3)) * effect * drawn.lognormvariate(0, 0.03)
    )


def test_a_slower_second_report_is_slower_and_a_faster_one_faster() -> None:
    slower = compare_reports(noisy(1.0, 1), noisy(1.15, 2))
    assert slower.slower == ["clients-1", "clients-2"]
    faster = compare_reports(noisy(1.15, 1), noisy(1.0, 2))
    assert [row.verdict for row in faster.rows] == ["faster", "faster", None]
    row = slower.rows[0]
    assert row.latency is not None
    assert row.latency.low < 1.15 < row.latency.high
    assert row.latency.confidence == pytest.approx(1 - 0.05 / 3), "three loads share the false alarms"
    assert row.throughput == pytest.approx(1 / 1.15, rel=0.05)


def test_equal_servers_show_no_difference() -> None:
    quiet = sum(
        not compare_reports(noisy(1.0, 2 * seed), noisy(1.0, 2 * seed + 1)).slower for seed in range(25)
    )
    assert quiet >= 23


def test_what_cannot_be_compared_says_why() -> None:
    before = report_of(WORKLOAD)
    after = report_of(
        workload_of(
            clients={"kind": "closed", "concurrency": [1, 2], "requests": 21},
            few={"kind": "closed", "concurrency": [1], "requests": 5},
        ),
        failed=["few"],
    )
    texts = [cells[-1] for cells in cells_of(compare_reports(before, after))]
    assert texts == ["not compared: asks for something else in B"] * 2 + ["not compared: failed in B"]
    few = [cells[-1] for cells in cells_of(compare_reports(before, before))]
    assert few[-1] == "not compared: 5 requests are too few; take at least 8"


def test_notes_say_what_else_differs() -> None:
    before, after = report_of(WORKLOAD), report_of(WORKLOAD)
    after["machine"] = {**after["machine"], "processor": "another"}
    after["perf_analyzer"] = {"version": "2.60", "mode": "request-count"}
    after["loads"] = after["loads"][:1]
    notes = " ".join(compare_reports(before, after).notes)
    assert "different machines: processor" in notes
    assert "different versions of perf_analyzer" in notes
    assert "only in one of the reports: clients-2, few-1" in notes


def test_pictures_are_compared_by_their_bytes() -> None:
    before, after = report_of(WORKLOAD), report_of(WORKLOAD)
    after["loads"][0]["samples"][3]["picture"] = "sha256:other"
    found = data_of(compare_reports(before, after))
    assert [load["equal_pictures"] for load in found["loads"]] == [19, 20, None]


def test_reports_without_a_common_load_are_refused() -> None:
    other = report_of(workload_of(other={"kind": "closed", "concurrency": [1]}))
    with pytest.raises(ConfigError, match="no load in common"):
        compare_reports(report_of(WORKLOAD), other)
