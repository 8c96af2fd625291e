"""Trials of the training: a few noisy pictures and steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from miniature.styles import LESSONS
from miniature.train import STAGES
from miniature.training.settings import Settings

Weights = dict[str, torch.Tensor]
Train = Callable[..., Weights]


@pytest.fixture
def trial(tmp_path: Path) -> Settings:
    """A work folder with four pictures a set, and two steps a stage."""
    rng = np.random.default_rng(0)
    for name in ("base", *LESSONS):
        (tmp_path / "data" / name).mkdir(parents=True)
        np.save(tmp_path / "data" / name / "images.npy", rng.integers(0, 256, (4, 64, 64, 3), np.uint8))
    usual = Settings()
    return replace(
        usual,
        work=tmp_path,
        steps=dict.fromkeys(usual.steps, 2),
        batch=dict.fromkeys(usual.batch, 4),
        lessons_in_batch=1,
        recoloured_in_batch=1,
        compile=False,
    )


@pytest.fixture
def train_stage() -> Train:
    """Run a stage; what it left."""

    def run(stage: str, settings: Settings) -> Weights:
        STAGES[stage].run(settings)
        return load_file(settings.weights(stage))

    return run
