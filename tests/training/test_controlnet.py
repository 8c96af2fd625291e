"""ControlNet runs: they start as the base, learn, continue exactly, and load in diffusers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image
from safetensors.torch import load_file

from intaglio_train import ConfigError, ControlNetConfig, LoraConfig, train_controlnet, train_lora

Keys = Callable[..., dict[str, Any]]


@pytest.fixture
def control_keys(keys: Keys, arrays: Path) -> Keys:
    def make(**changes: Any) -> dict[str, Any]:
        small = {
            "data": {"folder": str(arrays), "control": "pose"},
            "conditioning_embedding_out_channels": [8, 16, 24, 32],
        }
        return keys(**small) | changes

    return make


def losses(path: Path) -> list[str]:
    with path.open() as file:
        return [row["loss"] for row in csv.DictReader(file)]


def test_a_controlnet_learns_and_loads(control_keys: Keys, tmp_path: Path) -> None:
    result = train_controlnet(ControlNetConfig.model_validate(control_keys(steps=3)))
    assert result.folder == tmp_path / "out" / "tiny"
    config = json.loads((result.folder / "config.json").read_text())
    assert config["conditioning_embedding_out_channels"] == [8, 16, 24, 32]
    weights = load_file(str(result.folder / "diffusion_pytorch_model.safetensors"))
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert weights["controlnet_mid_block.weight"].any()  # zero before training
    assert weights["controlnet_cond_embedding.conv_in.weight"].shape[0] == 8
    ControlNetModel.from_pretrained(str(result.folder))
    assert len(losses(result.losses)) == 3


def test_a_stopped_run_goes_on_with_the_same_curve(control_keys: Keys, tmp_path: Path) -> None:
    cached = {"cache_latents": True, "cache_text": True, "cache_controls": True, "ema_decay": 0.9}
    whole = train_controlnet(
        ControlNetConfig.model_validate(control_keys(steps=4, output=str(tmp_path / "whole"), **cached))
    )
    train_controlnet(ControlNetConfig.model_validate(control_keys(steps=2, **cached)))
    rest = train_controlnet(ControlNetConfig.model_validate(control_keys(steps=4, **cached)))
    assert losses(rest.losses) == losses(whole.losses)
    assert rest.folder is not None
    assert whole.folder is not None
    name = "diffusion_pytorch_model.safetensors"
    assert (rest.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_controlnet_can_begin_from_another(control_keys: Keys, tmp_path: Path) -> None:
    first = train_controlnet(ControlNetConfig.model_validate(control_keys(output=str(tmp_path / "first"))))
    assert first.folder is not None
    second = train_controlnet(
        ControlNetConfig.model_validate(control_keys(init=str(first.folder), steps=1, learning_rate=1e-9))
    )
    assert second.folder is not None
    before, after = (
        load_file(str(folder / "diffusion_pytorch_model.safetensors"))
        for folder in (first.folder, second.folder)
    )
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-3, atol=1e-6)
    with pytest.raises(ConfigError, match="init /absent: cannot be loaded"):
        train_controlnet(
            ControlNetConfig.model_validate(control_keys(init="/absent", output=str(tmp_path / "third")))
        )
    assert not (tmp_path / "third").exists()


def test_samples_show_control_and_picture(control_keys: Keys, tmp_path: Path) -> None:
    samples = {"prompts": ["a", "b", "c"], "every": 5, "steps": 1, "guidance_scale": 2.0}
    train_controlnet(
        ControlNetConfig.model_validate(control_keys(samples=samples, steps=1, gradient_checkpointing=True))
    )
    assert Image.open(tmp_path / "out" / "samples" / "step-00000001.png").size == (192, 128)


def test_samples_of_buckets_have_the_size_of_the_largest(
    control_keys: Keys, two_sizes: dict[str, Any], tmp_path: Path
) -> None:
    samples = {"prompts": ["a", "b"], "every": 1, "steps": 1}
    keys = control_keys(**(two_sizes | {"samples": samples, "steps": 1}))
    train_controlnet(ControlNetConfig.model_validate(keys))
    assert Image.open(tmp_path / "out" / "samples" / "step-00000001.png").size == (2 * 64, 2 * 64)


def test_precisions_may_differ_between_runs_of_one_process(
    control_keys: Keys, keys: Keys, tmp_path: Path
) -> None:
    train_controlnet(
        ControlNetConfig.model_validate(
            control_keys(mixed_precision="bf16", steps=1, output=str(tmp_path / "a"))
        )
    )
    train_lora(LoraConfig.model_validate(keys(steps=1, output=str(tmp_path / "b"))))
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        train_lora(LoraConfig.model_validate(keys(mixed_precision="fp16", output=str(tmp_path / "c"))))
    assert not (tmp_path / "c").exists()
