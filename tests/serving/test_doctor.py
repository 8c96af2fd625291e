"""The doctor finds what is missing and names the command that fixes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.cli import main

from ..hub import without_hub

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(f"base: {{folder: {ROOT / 'miniature/model'}}}\nprofiles: {{sizes: [[64, 64]]}}\n")
    return path


def test_this_machine_can_run_the_demo(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(config)]) == 0
    report = capsys.readouterr().out
    assert f"nothing is missing: intaglio build {config}" in report
    assert "intaglio build" in report, "nothing is built yet: it says how"


def test_the_demo_is_named_where_it_can_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["doctor"]) == 0
    assert "the demo can run: make demo" in capsys.readouterr().out


def test_sdxl_is_missing_where_nothing_of_it_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_hub(tmp_path, monkeypatch)
    monkeypatch.chdir(ROOT)
    assert main(["doctor", "configs/sdxl.yaml"]) == 1
    report = capsys.readouterr().out
    assert "can run" not in report
    end = report[report.index("missing:") :]
    for source in (
        "base: no base is available",
        "vae: vae hub:madebyollin",
        "controlnet.pose: controlnet hub:xinsir",
    ):
        assert source in end
    assert end.count("intaglio build configs/sdxl.yaml") == 3
