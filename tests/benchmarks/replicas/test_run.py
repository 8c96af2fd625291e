"""The command, and what it wrote into the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.measuring.results import ROOT, read_json
from benchmarks.replicas import run
from benchmarks.replicas.chart import chart_of
from benchmarks.replicas.costs import SOURCES, Costs, measured_costs
from benchmarks.replicas.page import markdown_of
from intaglio.errors import InvalidRequest

RESULTS = ROOT / "benchmarks/results/replicas_simulated.json"


def test_the_page_and_the_plot_are_those_of_the_results() -> None:
    results = read_json(RESULTS)
    page = RESULTS.with_suffix(".md").read_text()
    assert page == markdown_of(results, plot="replicas_simulated.svg")
    assert "**Nothing here was measured on several cards.**" in page
    plot = chart_of(results)
    assert plot == chart_of(results)
    assert plot.count(b"sets of LoRAs") == len(run.LORAS)


def test_the_results_rest_on_what_was_measured() -> None:
    results = read_json(RESULTS)
    for name, reads in (("files in memory", False), ("files read", True)):
        costs = measured_costs(steps=results["steps"], reads=reads)
        assert Costs(**results["costs"][name]) == costs
    assert results["sources"] == dict(SOURCES)
    assert results["simulated"] is True


def test_the_results_are_those_of_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of the committed file, computed again."""
    results = read_json(RESULTS)
    monkeypatch.setattr(run, "REPLICAS", (3,))
    monkeypatch.setattr(run, "LORAS", (100,))
    monkeypatch.setattr(run, "LOADS", {False: (0.5,), True: ()})
    monkeypatch.setattr(run, "FACTOR_LOADS", {False: (), True: ()})
    again = run.simulated(requests=results["requests"], steps=results["steps"], seed=results["seed"])
    wanted = {"replicas": 3, "loras": 100, "load": 0.5, "reads": False}
    rows = [row for row in results["policies"] if wanted.items() <= row.items()]
    assert again["policies"] == rows
    assert len(rows) == 3


def test_the_command_writes_results_page_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "FACTOR_REPLICAS", (3,))
    monkeypatch.setattr(run, "REPLICAS", (1, 3))
    out = tmp_path / "found.json"
    run.run(out, requests=100, steps=30, seed=0)
    assert {path.name for path in tmp_path.iterdir()} == {"found.json", "found.md", "found.svg"}
    assert read_json(out)["requests"] == 100


@pytest.mark.parametrize("wrong", [{"picture": 0.0}, {"swap": -1.0}, {"kept": 0}])
def test_costs_are_seconds(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match="costs"):
        Costs(**{"picture": 1.0, "swap": 1.0, **wrong})  # type: ignore[arg-type]
