"""A user's LoRAs against a base, and published to a build."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.builds.file_checks import file_digest
from intaglio.contract.config import Deployment, Source, load_deployment
from intaglio.contract.lora_registry import LoraEntry
from intaglio.errors import ConfigError, LoraRefused
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio_export.weights.registry import (
    base_layers,
    check_entry,
    check_registry,
    described,
    lora_path,
    publish_registry,
)

from ...checkpoint import ROOT, Checkpoint
from ..conftest import write_config


def entry(path: Path) -> LoraEntry:
    return LoraEntry(file=path, kind="style")


def registered(checkpoint: Checkpoint, folder: Path, path: Path, **values: Any) -> Deployment:
    """A deployment whose registry has the LoRA `path`."""
    loras = {"style": {"file": str(path), "kind": "style", **values}}
    (folder / "loras.yaml").write_text(yaml.safe_dump({"loras": loras}))
    config = write_config(
        folder / "a.yaml", checkpoint, fuse=None, loras=None, registry="loras.yaml", swap="all"
    )
    return load_deployment(config)


def test_facts_of_a_file(checkpoint: Checkpoint) -> None:
    table = base_layers((Source(folder=checkpoint.base),))
    path = checkpoint.lora("character")
    found = described("character", entry(path), table=table)
    assert found.sha256 == file_digest(path).sha256
    assert (found.format, found.rank) == ("kohya LoRA", (4,))
    assert set(found.targets) == {"text_encoder", "text_encoder_2", "unet"}
    assert check_entry("character", found, table=table) == found


def test_a_file_that_changed_since_it_was_added(checkpoint: Checkpoint, tmp_path: Path) -> None:
    table = base_layers((Source(folder=checkpoint.base),))
    path = tmp_path / "x.safetensors"
    path.write_bytes(checkpoint.lora("style").read_bytes())
    added = described("x", entry(path), table=table)
    path.write_bytes(checkpoint.lora("character").read_bytes())
    with pytest.raises(LoraRefused, match="changed since it was added"):
        check_entry("x", added, table=table)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lora x: .*no such file; train it"):
        lora_path("x", entry(tmp_path / "x.safetensors"))


def test_publishing_copies_and_checks_every_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(checkpoint.lora("style").read_bytes())
    deployment = registered(checkpoint, tmp_path, path)
    served = publish_registry(deployment, tmp_path / "build")
    store = LoraStore(tmp_path / "build" / LORAS_FOLDER)
    assert store.current() == served
    assert store.path(served.loras["style"].sha256).read_bytes() == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(LoraRefused, match="style"):
        publish_registry(deployment, tmp_path / "build")
    assert store.current() == served


def test_a_file_that_was_overwritten_is_refused_before_any_work(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes(checkpoint.lora("style").read_bytes())
    deployment = registered(checkpoint, tmp_path, path, sha256=file_digest(path).sha256)
    served = publish_registry(deployment, tmp_path / "build")
    path.write_bytes(checkpoint.lora("character").read_bytes())
    for refuse in (check_registry, publish_registry):
        with pytest.raises(LoraRefused, match="changed since it was added: run intaglio loras add style"):
            refuse(deployment, tmp_path / "build")
    assert LoraStore(tmp_path / "build" / LORAS_FOLDER).current() == served
    check_registry(registered(checkpoint, tmp_path, path), tmp_path / "build")


def test_a_missing_file_is_no_reason_to_refuse_the_others(checkpoint: Checkpoint, tmp_path: Path) -> None:
    deployment = registered(checkpoint, tmp_path, tmp_path / "trained/neon/neon.safetensors")
    check_registry(deployment, tmp_path / "build")
    assert publish_registry(deployment, tmp_path / "build").loras == {}


def test_make_clean_leaves_the_demo_its_loras() -> None:
    """Every file of the miniature's registry is committed, or lies under trained/, which it keeps."""
    registry = yaml.safe_load((ROOT / "configs/loras.yaml").read_text())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    committed = set(tracked.stdout.splitlines())
    assert "mara" in registry["loras"], "the demo's own LoRA"
    for lora, values in registry["loras"].items():
        path = os.path.normpath(Path("configs") / values["file"])
        if lora == "mara" or not path.startswith("trained/"):
            assert path in committed, lora
