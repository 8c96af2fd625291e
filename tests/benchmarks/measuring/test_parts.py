"""Parts, what is kept of them, and what a run that is cut short leaves."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.measuring import parts
from benchmarks.measuring.parts import Part, Schedule, due_parts, run_part, run_parts, wanted_parts
from benchmarks.measuring.results import ROOT, read_part, write_part
from intaglio.errors import ConfigError

TABLE = (Part("one", "toy"), Part("two", "toy"), Part("three", "toy"))
WRITE = (
    "import json, pathlib, sys, time\n"
    "name, *told = sys.argv[3:]\n"
    "pathlib.Path(sys.argv[2], name + '.json').write_text(json.dumps({'case': sys.argv[1], 'told': told}))\n"
)
MakePart = Callable[..., Part]


@pytest.fixture
def make_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePart:
    """A part whose module has the body that is given."""
    monkeypatch.setattr(parts, "ROOT", tmp_path)

    def make(name: str, body: str) -> Part:
        (tmp_path / f"{name}_module.py").write_text(body)
        return Part(name, f"{name}_module", options=(name,), case=f"{name}_case.json")

    return make


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_parts_are_chosen_by_name_in_the_tables_order() -> None:
    assert wanted_parts(TABLE, "all") == list(TABLE)
    assert [part.name for part in wanted_parts(TABLE, "three,one")] == ["one", "three"]
    with pytest.raises(ConfigError, match=r"parts: x is unknown; parts are one, two, three"):
        wanted_parts(TABLE, "x")


def test_a_part_is_told_its_case_and_its_options(make_part: MakePart, tmp_path: Path) -> None:
    values = run_part(make_part("toy", WRITE), tmp_path, seconds=60, extra=["--images", "3"])
    assert values["case"] == str(tmp_path / "toy_case.json")
    assert values["told"] == ["--images", "3"]
    assert "failed" not in values
    assert read_part(tmp_path, "toy") == values


def test_a_part_that_fails_says_why(make_part: MakePart, tmp_path: Path) -> None:
    values = run_part(make_part("toy", "raise ValueError('no such thing')"), tmp_path, seconds=60)
    assert "exit 1" in values["failed"]
    assert "ValueError: no such thing" in values["failed"]
    assert read_part(tmp_path, "toy") == values


def test_a_part_that_is_cut_off_keeps_what_it_wrote(make_part: MakePart, tmp_path: Path) -> None:
    values = run_part(make_part("toy", WRITE + "time.sleep(60)"), tmp_path, seconds=2)
    assert values["told"] == []
    assert values["failed"].startswith("cut off after 2 s")


def test_a_part_that_is_asked_to_end_leaves_its_blocks_in_order() -> None:
    body = (
        "import time\n"
        "from benchmarks.measuring.parts import end_orderly_on_terminate\n"
        "end_orderly_on_terminate()\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "finally:\n"
        "    print('left', flush=True)\n"
    )
    command = [sys.executable, "-c", body]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.communicate()[0] == "left\n"
    assert process.returncode == 143


def test_only_what_ended_well_counts_as_done(tmp_path: Path) -> None:
    table = [Part(name, "toy", least_seconds=10) for name in ("done", "failed", "killed", "new")]
    write_part(tmp_path, "done", {"wall_seconds": 1.0})
    write_part(tmp_path, "failed", {"wall_seconds": 1.0, "failed": "exit 1"})
    write_part(tmp_path, "killed", {"seconds": {}})

    def due(seconds: float, *, again: bool = False) -> list[str]:
        schedule = Schedule(table, tmp_path, time.monotonic() + seconds, again=again)
        return [part.name for part, _ in due_parts(schedule, quiet())]

    assert due(60) == ["failed", "killed", "new"]
    assert due(60, again=True) == ["done", "failed", "killed", "new"]


def test_a_run_without_time_for_a_part_is_not_over(make_part: MakePart, tmp_path: Path) -> None:
    """Else its caller would think that everything is measured, and never call again."""
    said = Console(file=io.StringIO(), width=200)

    def run(seconds: float, *, again: bool = False) -> bool:
        schedule = Schedule([make_part("toy", WRITE)], tmp_path, time.monotonic() + seconds, again=again)
        return run_parts(schedule, options=lambda _part, _left: [], keep=lambda: None, console=said)

    assert not run(25)
    assert read_part(tmp_path, "toy") is None
    assert "toy: 25 s left, not begun" in said.file.getvalue()  # type: ignore[attr-defined]
    assert run(60)
    assert run(25), "there is nothing left to begin"
    assert not run(25, again=True), "what is asked for again has not run again"


def test_a_run_writes_after_every_part_and_knows_that_one_failed(make_part: MakePart, tmp_path: Path) -> None:
    table = [make_part("good", WRITE), make_part("bad", "raise SystemExit(3)"), make_part("last", WRITE)]
    kept: list[list[str]] = []

    def keep() -> None:
        kept.append([part.name for part in table if read_part(tmp_path, part.name) is not None])

    def run() -> bool:
        schedule = Schedule(table, tmp_path, time.monotonic() + 600)
        return run_parts(schedule, options=lambda part, left: [part.name], keep=keep, console=quiet())

    assert not run()
    assert kept == [["good"], ["good", "bad"], ["good", "bad", "last"], ["good", "bad", "last"]]
    assert (read_part(tmp_path, "last") or {})["told"] == ["last"]
    (tmp_path / "bad_module.py").write_text(WRITE)
    assert run(), "only the one that failed runs again"
    assert len(kept) == 6
