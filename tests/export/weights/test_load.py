"""Weights that do not fit their configuration."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from intaglio.errors import BuildError

from ...checkpoint import Checkpoint
from ..conftest import run_build, write_config


def test_weights_that_do_not_fit_their_config(checkpoint: Checkpoint, tmp_path: Path) -> None:
    shutil.copytree(checkpoint.base, tmp_path / "base")
    path = tmp_path / "base/text_encoder/model.safetensors"
    save_file({name: torch.zeros(3) for name in load_file(path)}, path, metadata={"format": "pt"})
    with pytest.raises(BuildError, match=r"does not load as text_encoder"):
        run_build(write_config(tmp_path / "a.yaml", checkpoint, base=[{"folder": "base"}], fuse={}, loras={}))
