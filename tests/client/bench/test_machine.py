"""What a result says of its machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from intaglio_client.bench.machine import describe_machine


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        ("{here}/benchmarks/run.py", "benchmarks/run.py"),
        ("/opt/venv/bin/intaglio", "intaglio"),
        ("/opt/site-packages/intaglio/__main__.py", "intaglio"),
        ("benchmarks/run.py", "benchmarks/run.py"),
    ],
    ids=["a module", "installed", "an installed module", "a file"],
)
def test_a_command_is_told_without_the_folders_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, shown: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [program.format(here=tmp_path), "load.yaml", "--out", f"{tmp_path}/out/a.json", "--seconds", "5"]
    monkeypatch.setattr(sys, "argv", words)
    assert describe_machine(tmp_path)["command"] == f"{shown} load.yaml --out out/a.json --seconds 5"
