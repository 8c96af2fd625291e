"""Engines are opened from the files that were built, now and later."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from intaglio.builds.file_checks import FileChecks
from intaglio.errors import EngineMismatch
from intaglio.stages.diffuse.engine_files import EngineFiles


def test_an_engine_that_is_opened_later_is_still_the_one_that_was_built(tiny: Any, tmp_path: Path) -> None:
    folder = tmp_path / "build"
    shutil.copytree(tiny.folder, folder)
    files = EngineFiles(tiny.manifest, folder, tiny.backend)
    with FileChecks(folder, command="make") as checks:
        files.start(checks, ["controlnet.pose"])
        assert files.load("controlnet.pose").network.name == "controlnet.pose"
    files.check("controlnet.pose")
    path = folder / "controlnet.pose.onnx"
    built = path.read_text()
    path.write_text("x" * len(built))
    with pytest.raises(
        EngineMismatch, match=r"controlnet.pose.onnx was changed .*intaglio build configs/tiny"
    ):
        files.check("controlnet.pose")
    path.write_text(built)
    files.check("controlnet.pose")
