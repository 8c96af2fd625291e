"""Which base is taken, and what is said of one that is missing or damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from intaglio.contract.config import load_deployment
from intaglio.errors import BuildError, ConfigError
from intaglio_export.weights.sources import find_base

from ...checkpoint import Checkpoint
from ..conftest import run_build, write_config


def test_base_falls_back_and_says_so(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = [{"folder": "nowhere"}, {"file": "preferred.safetensors"}, {"folder": str(checkpoint.base)}]
    deployment = load_deployment(write_config(tmp_path / "a.yaml", checkpoint, base=base))
    found = find_base(deployment.base)
    assert found.root == checkpoint.base
    assert [item.partition(": ")[2] for item in found.passed_over] == ["no such folder", "no such file"]


def test_no_base_names_every_candidate(checkpoint: Checkpoint, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "a.yaml", checkpoint, base=[{"folder": "nowhere"}, {"file": "x.safetensors"}]
    )
    with pytest.raises(
        ConfigError,
        match=r"no base is available: .*nowhere: no such folder; .*x.safetensors: no such file; correct",
    ):
        run_build(config)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "its header says .*fetch it again"),
        (lambda path: path.write_bytes(b"<html>not found</html>"), "not a safetensors file"),
        (
            lambda path: path.rename(path.with_name("diffusion_pytorch_model.bin")),
            "no .safetensors weights; .*bin is pickled",
        ),
        (lambda path: (path.parent / "config.json").write_text("{"), "config.json"),
    ],
)
def test_damaged_base_is_named(checkpoint: Checkpoint, tmp_path: Path, spoil: Any, message: str) -> None:
    shutil.copytree(checkpoint.base, tmp_path / "base")
    spoil(tmp_path / "base/unet/diffusion_pytorch_model.safetensors")
    with pytest.raises(BuildError, match=message):
        run_build(write_config(tmp_path / "a.yaml", checkpoint, base=[{"folder": "base"}], fuse={}, loras={}))
    assert not (tmp_path / "build/a").exists()
