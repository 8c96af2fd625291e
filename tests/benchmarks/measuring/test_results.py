"""Results on disk, and what they say of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.measuring import results
from benchmarks.measuring.results import ROOT, describe_machine, read_part, read_parts, stand_in, write_part


def test_parts_that_have_not_run_are_left_out(tmp_path: Path) -> None:
    assert read_part(tmp_path, "eager") is None
    write_part(tmp_path, "eager", {"seconds": 1.0})
    assert read_parts(tmp_path, ["eager", "served"]) == {"eager": {"seconds": 1.0}}


def test_the_checkout_is_found() -> None:
    assert (ROOT / "pyproject.toml").is_file()
    assert (ROOT / "benchmarks/results").is_dir()


def test_the_machine_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTAGLIO_COMMIT", "0123456789abcdef")
    found = describe_machine()
    assert found["commit"] == "0123456789abcdef"
    assert found["cores"] >= 1
    assert found["processor"]
    assert "numpy" in found["versions"]
    assert None not in found["versions"].values()


def test_without_a_card_nothing_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "read_card_memory", lambda gpu: None)
    assert "none of this is a result" in str(stand_in())
    monkeypatch.setattr(results, "read_card_memory", lambda gpu: object())
    assert stand_in() is None
