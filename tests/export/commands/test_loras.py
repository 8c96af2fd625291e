"""`intaglio loras`: the registry is written whole, and only with files that fit the base."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from intaglio.contract.lora_registry import load_registry
from intaglio.errors import ConfigError, InvalidRequest
from intaglio_export.commands.loras import app

from ...checkpoint import Checkpoint
from ..conftest import write_config


@pytest.fixture
def config(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    (tmp_path / "loras.yaml").write_text("# mine\nloras: {}\n")
    return write_config(tmp_path / "a.yaml", checkpoint, fuse=None, loras=None, registry="loras.yaml")


def run(*arguments: object, config: Path) -> str:
    """The output of the command; its errors are raised."""
    words = [*map(str, arguments), "--config", str(config)]
    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return f"{result.exit_code} {result.stdout}"


def test_a_lora_is_added_listed_and_shown(checkpoint: Checkpoint, config: Path) -> None:
    run("add", checkpoint.lora("style"), "--kind", "style", "--weight", 0.8, config=config)
    path = config.with_name("loras.yaml")
    entry = load_registry(path).loras["style"]
    assert (entry.weight, entry.format, entry.rank) == (0.8, "diffusers LoRA", (4,))
    assert path.read_text().startswith("# mine\n")
    run("add", "style", "--trigger", "in my style", config=config)  # the facts of its file again
    entry = load_registry(path).loras["style"]
    assert (entry.weight, entry.trigger_words) == (0.8, ("in my style",))
    assert "in my style" in run("list", config=config)
    assert "diffusers LoRA" in run("show", "style", config=config)
    assert run("check", config=config).startswith("0 ok")


def test_what_cannot_be_added(checkpoint: Checkpoint, config: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="--kind"):
        run("add", checkpoint.lora("style"), config=config)
    with pytest.raises(ConfigError, match="no such file"):
        run("add", tmp_path / "nowhere.safetensors", "--kind", "style", config=config)
    with pytest.raises(ConfigError, match="outside bounds"):
        run("add", checkpoint.lora("style"), "--kind", "style", "--weight", 2, config=config)
    assert load_registry(config.with_name("loras.yaml")).loras == {}
    with pytest.raises(InvalidRequest, match="'style' is unknown"):
        run("show", "style", config=config)


def test_a_refused_file_fails_the_check(checkpoint: Checkpoint, config: Path, tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(checkpoint.lora("style").read_bytes())
    run("add", path, "--kind", "style", config=config)
    path.write_bytes(path.read_bytes()[:-1])
    assert run("check", config=config).startswith("1 refused")


def test_a_deployment_without_a_registry(checkpoint: Checkpoint, tmp_path: Path) -> None:
    config = write_config(tmp_path / "b.yaml", checkpoint, fuse=None, loras=None)
    with pytest.raises(ConfigError, match="has no registry"):
        run("list", config=config)
