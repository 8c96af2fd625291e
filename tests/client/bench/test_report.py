from __future__ import annotations

import io
import json
from pathlib import Path

import PIL.Image
import pytest

from intaglio.errors import ConfigError
from intaglio_client.bench.plots import PLOTS, drawn_plots
from intaglio_client.bench.report import (
    HEADER,
    cells_of,
    growth_of,
    growth_of_memory,
    notes_of,
    page_of,
    samples_in,
)
from intaglio_client.bench.written import read_report, write_report

from .runs import report_of, workload_of

EVERY_KIND = workload_of(
    clients={"kind": "closed", "concurrency": [1, 4], "mix": {"plain": 2, "posed": 1}},
    alone={"kind": "closed", "concurrency": [1], "scenario": "SingleStream"},
    arrivals={"kind": "open", "rates": [2], "scenario": "Server", "latency_limit": 0.5},
    batch={"kind": "closed", "concurrency": [12], "warm_up": 0, "scenario": "Offline"},
    watched={"kind": "streaming", "concurrency": [1], "preview": 64},
    steps={"kind": "growth", "vary": "steps", "values": [2, 4, 8]},
)


def test_the_table_has_a_row_a_run_and_says_what_failed() -> None:
    data = report_of(EVERY_KIND, failed=["arrivals"])
    rows = {f"{row[0]} {row[1]}": row for row in cells_of(data)}
    assert all(len(row) == len(HEADER) for row in rows.values())
    assert rows["clients 4 under way"][2:5] == ["12", "1.429", "0.700"]
    assert rows["arrivals 2 a second"][-1] == "failed: the queue is full"
    assert rows["watched 1 under way"][-1] == "first event p50 0.010 s; first preview p50 0.300 s"


def test_a_percentile_that_too_few_requests_have_is_left_out() -> None:
    (row, *_) = cells_of(report_of(workload_of(one={"kind": "closed", "concurrency": [1], "requests": 12})))
    assert row[4:8] == ["0.700", "0.700", "", ""]


def test_the_scenarios_have_mlperfs_figures() -> None:
    rows = {row[0]: row[-1] for row in cells_of(report_of(EVERY_KIND))}
    assert rows["alone"] == "SingleStream: 90th percentile latency 0.700 s"
    assert rows["arrivals"] == (
        "Server: longest of 12 latencies 0.700 s (above 0.5 s); the server does not keep up"
    )
    assert rows["batch"] == "Offline: pictures a second 1.429 a second"
    assert any("no MLPerf results" in note for note in notes_of(report_of(EVERY_KIND)))


def test_growth_of_memory_has_its_line_and_its_plots() -> None:
    workload = workload_of(steps={"kind": "growth", "vary": "steps", "values": [2, 4, 8]})
    data = report_of(workload)
    before = drawn_plots(data)["growth.png"]
    for load in data["loads"]:
        load["memory"] = {"host_bytes": int((100 + 5 * load["value"]) * 2**20), "card_bytes": None}
    assert growth_of_memory(data, "host_bytes")["steps"][8.0] == 140 * 2**20
    assert growth_of_memory(data, "card_bytes") == {}
    assert "steps, memory of the server's processes: 100 MiB + 5 MiB for each, within 0 MiB." in notes_of(
        data
    )
    heights = [PIL.Image.open(io.BytesIO(png)).height for png in (before, drawn_plots(data)["growth.png"])]
    assert heights[1] > 1.5 * heights[0]


def test_one_value_is_no_growth() -> None:
    data = report_of(workload_of(steps={"kind": "growth", "vary": "steps", "values": [2, 4]}))
    assert "growth.png" in drawn_plots(data)
    data["loads"][1]["failed"] = "not begun"
    assert "growth.png" not in drawn_plots(data)


def test_growth_has_its_line() -> None:
    workload = workload_of(steps={"kind": "growth", "vary": "steps", "values": [2, 4, 8]})
    data = report_of(workload)
    for load in data["loads"]:
        load["latency"]["p50"] = 0.1 + 0.05 * load["value"]
    assert growth_of(data) == {"steps": {2.0: 0.2, 4.0: pytest.approx(0.3), 8.0: 0.5}}
    assert "steps grows as 0.100 s + 0.05 s for each, within 0.0 % of its largest value." in notes_of(data)


def test_the_page_says_what_was_measured_and_which_caches_helped() -> None:
    page = page_of(report_of(EVERY_KIND), ["latency.png"])
    assert "commit 0123456789ab" in page
    assert "perf_analyzer 2.45.0, count_windows" in page
    assert "cannot stop after a number of requests" in page
    assert "![latency.png](latency.png)" in page
    assert "* clients-1, clients-4: text embeddings: 3 different among 13 prompts" in page
    assert "* clients-1, clients-4: control maps: 1 different for" in page
    assert "* all loads: every request has a seed of its own" in page
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines[:11]}) == 1


def test_every_plot_is_a_png_and_failed_loads_are_left_out() -> None:
    plots = drawn_plots(report_of(EVERY_KIND, failed=["watched"]))
    assert set(plots) == set(PLOTS)
    for png in plots.values():
        with PIL.Image.open(io.BytesIO(png)) as image:
            image.verify()
            assert min(image.size) > 400
    assert drawn_plots(report_of(EVERY_KIND, failed=list(EVERY_KIND.loads))) == {}


def test_a_report_is_written_and_read_again(tmp_path: Path) -> None:
    data = report_of(EVERY_KIND)
    written = write_report(data, tmp_path, drawn_plots(data))
    assert read_report(written.data) == json.loads(json.dumps(data))
    assert samples_in(read_report(written.data)["loads"][0]) == samples_in(data["loads"][0])
    assert {path.name for path in written.plots} == set(PLOTS)


@pytest.mark.parametrize("text", ["[]", "{", '{"loads": [], "schema": 0}'])
def test_something_else_is_no_report(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ConfigError, match="report"):
        read_report(tmp_path / "report.json")
