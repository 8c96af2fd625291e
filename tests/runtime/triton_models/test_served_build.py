"""Which build a model serves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.builds.manifest import write_manifest
from intaglio.triton_models.stages import PostprocessModel, PreprocessModel

from .conftest import Log, Request, opened


def test_refused_at_load(
    log: Log, build: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failure: Any = sys.modules["triton_python_backend_utils"]
    with pytest.raises(
        failure.TritonModelException,
        match=r"written for build 1111.*rebuild with: intaglio build configs/tiny.yaml",
    ):
        opened(PreprocessModel(), build_key="1" * 64)
    opened(PreprocessModel(), build_key="0" * 64)
    monkeypatch.delenv("INTAGLIO_BUILD")
    with pytest.raises(failure.TritonModelException, match="set INTAGLIO_BUILD"):
        opened(PreprocessModel())
    opened(PreprocessModel(), build=str(build))
    with pytest.raises(failure.TritonModelException, match=r"No such file"):
        opened(PostprocessModel(), build=str(tmp_path))


def test_a_version_that_names_its_build(log: Log, build: Path, tiny: Any, tmp_path: Path) -> None:
    """What is built meanwhile is another version's."""
    model = tmp_path / "preprocess"
    (model / "2").mkdir(parents=True)
    limits = tiny.manifest.limits.model_copy(update={"steps": 7})
    write_manifest(model / "2", tiny.manifest.model_copy(update={"limits": limits}))
    for version, steps in (("1", tiny.manifest.limits.steps), ("2", 7)):
        stage: Any = PreprocessModel()
        stage.initialize({"model_config": "{}", "model_repository": str(model), "model_version": version})
        (response,) = stage.execute(
            [Request({"prompt": np.array([b"a"], object), "steps": np.array([60], np.int32)}, ["metadata"])]
        )
        assert str(response.error).endswith(f"allowed: 1 to {steps}")
