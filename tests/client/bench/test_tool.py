from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import IntaglioError
from intaglio_client.bench.runs import Run, runs_of
from intaglio_client.bench.tool import Files, find_tool

from .runs import NEW, OLD, workload_of


def run_of(kind: str, **values: Any) -> Run:
    return runs_of(workload_of(one={"kind": kind, "warm_up": 3, **values}))[0]


def options_of(command: list[str]) -> dict[str, str]:
    return {one: other for one, other in itertools.pairwise(command) if one.startswith("-")}


def test_a_binary_that_counts_requests_gets_their_number() -> None:
    run = run_of("closed", concurrency=[4])
    options = options_of(NEW.command(run, "host:1", Files(Path("f"), run.name)))
    assert options["--request-count"] == "15", "those of the warm-up, too"
    assert options["--concurrency-range"] == "4"
    assert options["--max-threads"] == "1", "several threads send in an order of their own"
    assert "--measurement-mode" not in options
    assert options["--profile-export-file"] == "f/one-4.export.json"


def test_the_old_binary_gets_windows_that_hold_all_requests() -> None:
    run = run_of("closed", concurrency=[4])
    options = options_of(OLD.command(run, "host:1", Files(Path("f"), run.name)))
    windows = int(options["--max-trials"])
    assert windows * int(options["--measurement-request-count"]) >= 15 + 3, "3 may overtake the last"
    assert options["--measurement-mode"] == "count_windows"
    assert "--request-count" not in options


def test_an_open_load_brings_its_arrivals_and_a_stream_streams() -> None:
    opened = OLD.command(run_of("open", rates=[0.5]), "host:1", Files(Path("f"), "one-0.5"))
    assert options_of(opened)["--request-intervals"] == "f/one-0.5.intervals"
    assert "--concurrency-range" not in opened
    streamed = OLD.command(run_of("streaming", concurrency=[2]), "host:1", Files(Path("f"), "x"))
    assert "--streaming" in streamed
    assert options_of(streamed)["-m"] == "sdxl_stream"


def test_a_failed_run_says_what_perf_analyzer_said(tmp_path: Path) -> None:
    script = tmp_path / "bin" / "perf_analyzer"
    script.parent.mkdir()
    script.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        "--version) echo Perf Analyzer Version 2.60.1;;\n"
        "--help) echo '  --request-count <count>'; exit 1;;\n"
        "*) echo WARNING: noise; echo Failed: the queue is full; echo WARNING: more; exit 3;;\n"
        "esac\n"
    )
    script.chmod(0o755)
    tool = find_tool(tmp_path)
    assert (tool.version, tool.mode) == ("2.60.1", "request-count")
    run = run_of("closed", concurrency=[1])
    with pytest.raises(IntaglioError, match="one-1: perf_analyzer failed: Failed: the queue is full"):
        tool.run(run, "host:1", Files(tmp_path / "loads", run.name), expected=1.0)


def test_a_binary_that_does_not_run_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(IntaglioError, match=r"no perf_analyzer on PATH; run: pip install .*tritonclient"):
        find_tool(tmp_path)
    script = tmp_path / "perf_analyzer"
    script.write_text("#!/bin/sh\necho \"version 'GLIBC_2.38' not found\" >&2\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(IntaglioError, match=r"does not run here: .*GLIBC_2.38.*docs/benchmarking.md"):
        find_tool(tmp_path)
