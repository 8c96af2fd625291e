"""`intaglio build` on the console: options reach the build, and its outcomes are printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from intaglio_export import build as building
from intaglio_export.build import BuildOptions, BuildResult
from intaglio_export.commands.build import app
from intaglio_export.plan.run import Reporter
from intaglio_export.plan.stages import StageOutcome


def test_options_and_outcomes(
    built: tuple[Path, BuildResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, BuildOptions]] = []

    def build(config: Path, options: BuildOptions, *, reporter: Reporter) -> BuildResult:
        asked.append((config, options))
        reporter.planned(1.0)
        reporter.started("onnx/unet", "changed: weights")
        reporter.finished(StageOutcome("onnx/unet", True, "changed: weights", 1.0), 1.0)
        return built[1]

    monkeypatch.setattr(building, "build_deployment", build)
    words = ["a.yaml", "--target", "sm89", "--output", str(tmp_path), "--force"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert asked == [(Path("a.yaml"), BuildOptions(target="sm89", output=tmp_path, force=True))]
    result = CliRunner().invoke(app, ["a.yaml", "--check", "--keep-all"])
    assert result.exit_code == 0, result.output
    assert asked[-1] == (Path("a.yaml"), BuildOptions(check=True, keep=None))
    assert f"build {built[1].manifest.key[:12]}" in result.output
    for outcome in built[1].outcomes:
        assert outcome.name in result.output
