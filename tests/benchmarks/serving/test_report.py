"""The page of a measurement with what MLPerf published beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from benchmarks.measuring.results import ROOT, read_json
from benchmarks.serving import published
from benchmarks.serving.report import beside_published, differences, main, page_with_published
from intaglio_client.bench.runs import runs_of
from intaglio_client.bench.workload import read_workload
from intaglio_client.bench.written import write_data

from ...client.bench.runs import report_of, workload_of

SCENARIOS = workload_of(
    alone={"kind": "closed", "concurrency": [1], "scenario": "SingleStream"},
    # Each takes 0.7 s: at two a second the longest is above the first limit and below the second.
    slow={"kind": "open", "rates": [1, 2], "scenario": "Server", "latency_limit": 1.0},
    fast={"kind": "open", "rates": [3], "scenario": "Server", "latency_limit": 0.5},
    batch={"kind": "closed", "concurrency": [12], "warm_up": 0, "scenario": "Offline"},
    plain={"kind": "closed", "concurrency": [2]},
)


def test_every_scenario_stands_beside_its_published_results() -> None:
    found = beside_published(report_of(SCENARIOS))
    own = {one["scenario"]: one["own"] for one in found}
    assert own == {"SingleStream": 0.7, "Server": 2.0, "Offline": pytest.approx(1 / 0.7)}
    assert len(found) == len(published.PUBLISHED)
    eight = next(one for one in found if one["scenario"] == "Offline" and one["cards"] == 8)
    assert eight["of_one_card"] == eight["value"] / 8
    assert eight["ratio"] == pytest.approx(eight["own"] / eight["of_one_card"])


def test_a_scenario_without_a_figure_has_no_row() -> None:
    data = report_of(SCENARIOS, failed=["alone", "slow"])
    assert {one["scenario"] for one in beside_published(data)} == {"Offline"}, "no rate was within its limit"


def test_the_page_says_what_differs() -> None:
    data = {**report_of(SCENARIOS), "note": "Beside other work."}
    page = page_with_published(data, ["h200_latency.png"])
    assert page.startswith("# w: a test\n\nBeside other work.\n\nClient: ")
    assert "| Offline | 1.429 pictures/s | 19.19 | v5.1, 8 x H200-SXM-141GB, fp8 | 2.399 | 0.60 |" in page
    assert "![h200_latency.png](h200_latency.png)" in page
    assert "* precision: fp32 for every network here; fp8 for the UNet there" in page
    assert "12 of SingleStream" in " ".join(differences(data))
    plain = page_with_published(report_of(workload_of(one={"kind": "closed", "concurrency": [1]})), [])
    assert "published" not in plain


def test_results_get_their_page_and_plots(tmp_path: Path) -> None:
    path = write_data(report_of(SCENARIOS), tmp_path).rename(tmp_path / "h200_serving.json")
    main(path, note="Beside other work.")
    assert read_json(path)["published"]["results"][0]["scenario"] == "SingleStream"
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "h200_serving.json", "h200_serving.md", "h200_serving_latency.png", "h200_serving_stages.png",
        "h200_serving_throughput.png",
    ]  # fmt: skip
    write_data(report_of(SCENARIOS, failed=["alone"]), tmp_path).rename(path)
    with pytest.raises(typer.Exit):
        main(path)
    assert "failed: the queue is full" in path.with_suffix(".md").read_text()


def test_the_workload_of_the_card_sends_mlperfs_settings() -> None:
    workload = read_workload(ROOT / "benchmarks/workloads/h200.yaml")
    mlperf = read_workload(ROOT / "benchmarks/workloads/mlperf.yaml")
    assert workload.requests["mlperf"] == mlperf.requests["picture"]
    assert {run.scenario for run in runs_of(workload)} == {None, "SingleStream", "Offline", "Server"}
