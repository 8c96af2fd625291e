"""Keys depend on content: a base that was moved, linked or renamed rebuilds nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from intaglio.builds.manifest import read_manifest
from intaglio.contract.config import load_deployment
from intaglio_export.engines.platform import Platform
from intaglio_export.plan.plan import Plan
from intaglio_export.plan.stages import StageStore

from ..stability_layout import write_stability_file
from .conftest import run_build, write_config

CPU = Platform("onnxruntime", "cpu", "1", on_gpu=False)


def keys(config: Path) -> dict[str, str]:
    """The key of every stage."""
    deployment = load_deployment(config)
    return {
        stage.name: stage.key for stage in Plan(deployment, CPU, StageStore(config.parent / "store")).stages
    }


def moved(checkpoint: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint.base, tmp_path / "elsewhere/base"))


def linked(checkpoint: Any, tmp_path: Path) -> Path:
    (tmp_path / "link").symlink_to(checkpoint.base)
    return tmp_path / "link"


def linked_file_by_file(checkpoint: Any, tmp_path: Path) -> Path:
    """As the cache of the hub has it: names that lead to blobs."""
    for number, path in enumerate(sorted(checkpoint.base.rglob("*"))):
        place = tmp_path / "snapshot" / path.relative_to(checkpoint.base)
        if path.is_file():
            blob = tmp_path / "blobs" / str(number)
            blob.parent.mkdir(exist_ok=True)
            shutil.copy(path, blob)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(blob)
    return tmp_path / "snapshot"


@pytest.mark.parametrize("move", [moved, linked, linked_file_by_file])
def test_keys_of_a_folder_stay(checkpoint: Any, tmp_path: Path, move: Any) -> None:
    before = keys(write_config(tmp_path / "a.yaml", checkpoint))
    base = move(checkpoint, tmp_path)
    after = keys(write_config(tmp_path / "b.yaml", checkpoint, base=[{"folder": str(base)}]))
    assert after == before


def test_keys_of_a_changed_base_change(checkpoint: Any, tmp_path: Path) -> None:
    before = keys(write_config(tmp_path / "a.yaml", checkpoint))
    base = moved(checkpoint, tmp_path)
    unet: Any = UNet2DConditionModel.from_pretrained(base / "unet")
    with torch.no_grad():
        unet.conv_in.bias += 1
    unet.save_pretrained(base / "unet")
    after = keys(write_config(tmp_path / "b.yaml", checkpoint, base=[{"folder": str(base)}]))
    changed = {name for name in before if after[name] != before[name]}
    assert {"fuse", "onnx/unet", "engine/unet"} <= changed
    assert not [name for name in changed if "vae" in name or "controlnet" in name]


def test_keys_of_a_renamed_file_stay(checkpoint: Any, tmp_path: Path) -> None:
    classes: dict[str, Any] = {
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
    }
    networks = {name: one.from_pretrained(checkpoint.base / name) for name, one in classes.items()}
    first, second = tmp_path / "first.safetensors", tmp_path / "renamed/second.safetensors"
    write_stability_file(first, networks)

    def config(name: str, file: Path) -> Path:
        base = [{"file": str(file)}, {"folder": str(checkpoint.base)}]
        return write_config(tmp_path / name, checkpoint, base=base)

    before = keys(config("a.yaml", first))
    second.parent.mkdir()
    first.rename(second)
    assert keys(config("b.yaml", second)) == before


def test_a_moved_base_rebuilds_nothing(checkpoint: Any, built: Any, tmp_path: Path) -> None:
    _, result = built
    before = read_manifest(result.folder)
    shutil.copytree(result.folder.parent, tmp_path / "build")
    base = moved(checkpoint, tmp_path)
    config = write_config(tmp_path / "plate.yaml", checkpoint, base=[{"folder": str(base)}])
    again, watcher = run_build(config)
    assert {outcome.name for outcome in watcher.outcomes if outcome.done} <= {"repository"}
    assert again.manifest.networks == before.networks
