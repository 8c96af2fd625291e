"""The chart of a run."""

from __future__ import annotations

import pytest

from benchmarks.measuring.results import ROOT, read_json
from benchmarks.speed.chart import chart_of

from .runs import good_results

RESULTS = ROOT / "benchmarks/results/h200_third.json"


def test_every_contender_has_a_bar() -> None:
    chart = chart_of(good_results())
    assert chart.count("<rect") == 4
    assert 'width="400.0"' in chart, "the longest bar"
    assert "Test Card" in chart


def test_a_contender_that_was_not_measured_has_none() -> None:
    results = good_results()
    results["parts"] = {"eager": results["parts"]["eager"], "served": {"failed": "exit 1"}}
    assert chart_of(results).count("<rect") == 1
    assert chart_of(results | {"parts": {}}).count("<rect") == 0


def test_a_chart_without_a_card_says_so() -> None:
    assert "no card" in chart_of(good_results() | {"stand_in": "for debugging"})


@pytest.mark.parametrize("name", ["h200_third", "h200"])
def test_the_committed_chart_is_that_of_its_results(name: str) -> None:
    results = RESULTS.with_stem(name)
    assert results.with_suffix(".svg").read_text(encoding="utf-8") == chart_of(read_json(results))
