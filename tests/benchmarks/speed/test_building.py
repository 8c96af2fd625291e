"""What is kept of a build while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.measuring.results import read_part
from benchmarks.measuring.watches import HostWatch
from benchmarks.speed.building import Journal
from intaglio.engines.card import PeakWatch
from intaglio_export.plan.stages import StageOutcome


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path, "build_sizes", card=PeakWatch(0), host=HostWatch())


def outcome(name: str, *, done: bool) -> StageOutcome:
    return StageOutcome(name, done=done, reason="new", seconds=1.5)


def test_every_stage_is_kept_when_it_ends(journal: Journal, tmp_path: Path) -> None:
    journal.finished(outcome("unet.onnx", done=True), expected=1.0)
    found = read_part(tmp_path, "build_sizes") or {}
    assert found["stages"] == {"unet.onnx": 1.5}
    assert (found["complete"], found["resumed"]) == (False, False)
    journal.keep(complete=True)
    assert (read_part(tmp_path, "build_sizes") or {})["complete"]


def test_a_stage_that_was_there_makes_it_no_build_from_nothing(journal: Journal, tmp_path: Path) -> None:
    journal.finished(outcome("unet.onnx", done=False), expected=1.0)
    assert (read_part(tmp_path, "build_sizes") or {})["resumed"]
