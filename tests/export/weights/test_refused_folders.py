"""Folders of other models, and folders that lack something: one line, before anything is built."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from intaglio.contract.sources import Source
from intaglio.errors import BuildError, ConfigError
from intaglio_export.weights.sources import find_base

from ...checkpoint_configs import PIPELINE

MINIATURE = Path(__file__).parents[3] / "miniature/model"


def copied(folder: Path, **changes: dict[str, Any]) -> Path:
    """The miniature with some values of its JSON files changed; `/` is written `__`."""
    shutil.copytree(MINIATURE, folder)
    for name, values in changes.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


REFINER = PIPELINE | {"requires_aesthetics_score": True, "text_encoder": [None, None]}
FLOW = {"prediction_type": "flow_prediction"}
PLAYGROUND = {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_data": 0.5, "sigma_max": 80.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unet__config": {"in_channels": 9}}, "unet says in_channels: 9; .*inpainting"),
        ({"unet__config": {"time_cond_proj_dim": 256}}, "unet says time_cond_proj_dim: 256; .*LCM LoRA"),
        ({"model_index": REFINER}, "this is the SDXL refiner"),
        ({"model_index": {"_class_name": "StableDiffusionPipeline"}}, "intaglio serves SDXL only"),
        ({"vae__config": {"latent_channels": 16}}, "vae says latent_channels: 16; .*another model"),
        ({"text_encoder__config": {"model_type": "t5"}}, "text_encoder says model_type: 't5'"),
        ({"scheduler__scheduler_config": PLAYGROUND}, "EDMDPMSolverMultistepScheduler"),
        ({"scheduler__scheduler_config": FLOW}, "prediction_type: 'flow_prediction'"),
        ({"unet__config": {"new_option": 2}}, "unet says new_option: 2, which intaglio does not know"),
    ],
)  # fmt: skip
def test_other_models_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = copied(tmp_path / "base", **changes)
    with pytest.raises(ConfigError, match=message) as refused:
        find_base([Source(folder=folder)])
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("text_encoder_2", "text_encoder_2/config.json: missing; a base has text_encoder, .*unet, vae"),
        ("vae", r"vae/config.json: missing; .*\(`vae:` may name the last elsewhere\)"),
        ("tokenizer_2/merges.txt", "tokenizer_2/merges.txt: missing; a base must have both tokenizers"),
        ("model_index.json", "model_index.json: No such file"),
        ("scheduler/scheduler_config.json", "scheduler_config.json: No such file"),
        ("unet/diffusion_pytorch_model.safetensors", "unet: no .safetensors weights"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(tmp_path: Path, lost: str, message: str) -> None:
    folder = copied(tmp_path / "base")
    path = folder / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(BuildError, match=message):
        find_base([Source(folder=folder)])


def test_a_vae_from_elsewhere_needs_none_here(tmp_path: Path) -> None:
    folder = copied(tmp_path / "base", model_index={"vae": [None, None]})
    shutil.rmtree(folder / "vae")
    assert find_base([Source(folder=folder)], replaced=("vae",)).root == folder
