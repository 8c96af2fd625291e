"""The doctor finds what is missing and names the command that fixes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.cli import main

CONFIG = "base: [{folder: weights}]\nprofiles: {sizes: [[64, 64]]}\nserver: {http_port: %d}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG % 18999)
    return path


def test_this_machine_can_run_the_demo(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(config)]) == 0
    report = capsys.readouterr().out
    assert "the demo can run" in report
    assert "intaglio build" in report, "nothing is built yet: it says how"
