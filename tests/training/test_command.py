"""The command: one line and exit code 1 for what a user can put right, a table at the end, weights where
asked for.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from intaglio_train.command import app

Keys = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "/absent/model"}, "model /absent/model: no such file or folder"),
        ({"stepz": 3}, "unknown key stepz; did you mean steps?"),
        ({"mixed_precision": "fp16"}, "fp16 needs a GPU"),
        ({"data": {"folder": "/absent/data"}}, "/absent/data: no such folder"),
    ],
)
def test_a_bad_configuration_ends_with_one_line_and_leaves_nothing(
    keys: Keys, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(keys(**changes)))
    result = CliRunner().invoke(app, ["lora", str(config), "--quiet"])
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_options_replace_keys_and_weights_are_installed(keys: Keys, arrays: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(keys(data={"folder": "/absent"})))
    options = [
        "--data",
        str(arrays),
        "--steps",
        "1",
        "--output",
        str(tmp_path / "there"),
        "--install",
        str(tmp_path / "loras"),
    ]
    result = CliRunner().invoke(app, ["lora", str(config), *options])
    assert result.exit_code == 0, result.stderr
    assert "last loss" in result.stdout
    assert (tmp_path / "loras" / "tiny.safetensors").read_bytes() == (
        tmp_path / "there" / "tiny.safetensors"
    ).read_bytes()
    assert not (tmp_path / "out").exists()


def test_a_controlnet_is_installed_as_a_folder(keys: Keys, arrays: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    small = {
        "conditioning_embedding_out_channels": [8, 16, 24, 32],
        "data": {"folder": str(arrays), "control": "pose"},
    }
    config.write_text(yaml.safe_dump(keys(steps=1, **small)))
    for _ in range(2):  # the second time over the first
        result = CliRunner().invoke(
            app, ["controlnet", str(config), "--install", str(tmp_path / "controlnets")]
        )
        assert result.exit_code == 0, result.stderr
    names = {path.name for path in (tmp_path / "controlnets" / "tiny").iterdir()}
    assert names == {"config.json", "diffusion_pytorch_model.safetensors"}


def test_importing_the_package_and_its_command_loads_no_torch() -> None:
    code = (
        "import sys, intaglio_train, intaglio_train.command;"
        " sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
