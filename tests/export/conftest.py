"""Builds of a random-weight miniature."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from intaglio_export.build import BuildOptions, BuildResult, build_deployment
from intaglio_export.plan.stages import StageOutcome

from ..checkpoint import Checkpoint, make_checkpoint

# Barriers of several threads on cores that are shared with other work cost ten times what they save at this
# size.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@dataclass
class Watcher:
    """A reporter that remembers."""

    outcomes: list[StageOutcome] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    waited: bool = False

    def planned(self, seconds: float) -> None:
        self.seconds = seconds

    def started(self, stage: str, reason: str) -> None:
        self.begun.append(stage)

    def finished(self, outcome: StageOutcome, expected: float) -> None:
        self.outcomes.append(outcome)

    def waiting(self) -> None:
        self.waited = True


def write_config(path: Path, checkpoint: Checkpoint, **changes: Any) -> Path:
    """A deployment YAML of the checkpoint, small enough for a test."""
    values: dict[str, Any] = {
        "base": [{"folder": str(checkpoint.base)}],
        "controlnets": {
            name: {"folder": str(checkpoint.controlnet(name)), "type": name} for name in ("pose", "canny")
        },
        "loras": {name: {"path": str(checkpoint.lora(name))} for name in ("style", "character")},
        "fuse": {"style": None, "character": 0.7},
        "profiles": {"sizes": [[64, 64], [72, 96]], "text_chunks": 2},
        "precision": "fp32",
        "runtime": "onnxruntime",
        "verify_tolerance": 0.001,
        "build": "build",
        "execution": {"threads": 1},
    }
    values |= changes
    path.write_text(
        yaml.safe_dump({key: value for key, value in values.items() if value is not None}, sort_keys=False)
    )
    return path


def run_build(config: Path, **options: Any) -> tuple[BuildResult, Watcher]:
    watcher = Watcher()
    return build_deployment(config, BuildOptions(**options), reporter=watcher), watcher


@pytest.fixture(scope="session")
def built(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildResult]:
    """One whole build: base, two ControlNets, two fused LoRAs. Tests must not change it."""
    config = write_config(tmp_path_factory.mktemp("deployment") / "plate.yaml", checkpoint)
    return config, run_build(config)[0]


def done(watcher: Any) -> dict[str, str]:
    return {outcome.name: outcome.reason for outcome in watcher.outcomes if outcome.done}


@pytest.fixture
def copied(built: tuple[Path, BuildResult], tmp_path: Path) -> Path:
    """The built deployment's YAML in a folder of its own, with its build: free to be changed."""
    config, result = built
    shutil.copytree(result.folder.parent, tmp_path / "build")
    shutil.copy(config, tmp_path / "plate.yaml")
    return tmp_path / "plate.yaml"
