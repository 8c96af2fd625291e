"""Configurations that do not belong together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from intaglio.errors import ConfigError

from ...checkpoint import Checkpoint
from ..conftest import run_build, write_config


def test_controlnet_of_another_base(checkpoint: Checkpoint, tmp_path: Path) -> None:
    shutil.copytree(checkpoint.controlnet("pose"), tmp_path / "pose")
    path = tmp_path / "pose/config.json"
    path.write_text(path.read_text().replace('"cross_attention_dim": 96', '"cross_attention_dim": 2048'))
    controlnets = {"pose": {"folder": "pose", "type": "pose"}}
    with pytest.raises(
        ConfigError, match=r"controlnet.pose: made for another base: cross_attention_dim is 2048"
    ):
        run_build(write_config(tmp_path / "a.yaml", checkpoint, controlnets=controlnets))
