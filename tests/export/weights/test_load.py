"""Weights that do not fit their configuration."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from intaglio.errors import BuildError
from intaglio.text_encoder_names import published_name
from intaglio_export.weights.load import load_network
from intaglio_export.weights.sources import Weights

from ...checkpoint import Checkpoint
from ..conftest import run_build, write_config


@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2"])
def test_text_encoders_without_the_level_text_model_load(
    checkpoint: Checkpoint, tmp_path: Path, component: str
) -> None:
    """transformers 5.6 writes files without it; older releases would draw all weights at random."""
    shutil.copytree(checkpoint.base / component, tmp_path / component)
    path = tmp_path / component / "model.safetensors"
    expected = load_file(path)
    flat = {name.removeprefix("text_model."): tensor for name, tensor in expected.items()}
    save_file(flat, path, metadata={"format": "pt"})
    found = load_network(component, Weights(tmp_path / component)).state_dict()
    assert all(torch.equal(found[published_name(name)], tensor.float()) for name, tensor in expected.items())


def test_weights_that_do_not_fit_their_config(checkpoint: Checkpoint, tmp_path: Path) -> None:
    shutil.copytree(checkpoint.base, tmp_path / "base")
    path = tmp_path / "base/text_encoder/model.safetensors"
    save_file({name: torch.zeros(3) for name in load_file(path)}, path, metadata={"format": "pt"})
    with pytest.raises(BuildError, match=r"does not load as text_encoder"):
        run_build(write_config(tmp_path / "a.yaml", checkpoint, base=[{"folder": "base"}], fuse={}, loras={}))
