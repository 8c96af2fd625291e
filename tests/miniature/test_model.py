"""The committed weights: small, complete, and read by diffusers as any SDXL model is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import miniature
from miniature.architecture import CONTROL_TYPES
from miniature.judging import psnr
from miniature.world import Render, Scene

HERE = Path(miniature.__file__).parent
LORAS = sorted(path.name for path in (HERE / "loras").glob("*.safetensors"))
SIDE = 64  # pixels: enough to run every layer
Truth = tuple[Scene, Render]
_pipelines: Any = diffusers  # partly untyped


@pytest.fixture(scope="module")
def pipeline() -> Any:
    loaded = _pipelines.StableDiffusionXLPipeline.from_pretrained(
        str(HERE / "model"), torch_dtype=torch.float32
    )
    loaded.set_progress_bar_config(disable=True)
    return loaded


def paint(pipeline: Any) -> NDArray[np.float32]:
    size = {"width": SIDE, "height": SIDE}
    generator = torch.Generator("cpu").manual_seed(0)
    picture: NDArray[np.float32] = pipeline(
        "mara dancing in a room",
        num_inference_steps=2,
        guidance_scale=4.0,
        generator=generator,
        output_type="np",
        **size,
    ).images[0]
    return picture


@pytest.fixture(scope="module")
def plain(pipeline: Any) -> NDArray[np.float32]:
    return paint(pipeline)


def test_weights_fit_the_repository() -> None:
    files = list(HERE.rglob("*.safetensors"))
    assert len(files) >= 4 + len(CONTROL_TYPES) + len(LORAS)
    assert sum(path.stat().st_size for path in files) <= 48 * 2**20


def test_the_schedule_says_what_its_defaults_would_not() -> None:
    config = json.loads((HERE / "model" / "scheduler" / "scheduler_config.json").read_text())
    assert config["clip_sample"] is False
    assert config["set_alpha_to_one"] is False


def test_the_base_paints(plain: NDArray[np.float32]) -> None:
    assert plain.shape == (SIDE, SIDE, 3)
    assert np.isfinite(plain).all()
    assert plain.std() > 0.05


@pytest.mark.parametrize("kind", CONTROL_TYPES)
def test_a_controlnet_loads_whole_and_is_trained(pipeline: Any, kind: str) -> None:
    folder = str(HERE / "controlnets" / kind)
    controlnet, report = _pipelines.ControlNetModel.from_pretrained(
        folder, torch_dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    assert controlnet.config.block_out_channels == pipeline.unet.config.block_out_channels
    assert controlnet.controlnet_mid_block.weight.abs().max() > 0


def test_every_control_type_has_a_controlnet_and_no_other() -> None:
    assert {path.name for path in (HERE / "controlnets").iterdir()} == set(CONTROL_TYPES)


def test_the_loras_are_the_lessons_and_the_one_for_few_steps() -> None:
    assert LORAS == [
        "lcm.safetensors",
        "mara.safetensors",
        "mara_kohya.safetensors",
        "meadow.safetensors",
        "night.safetensors",
        "pencil.safetensors",
    ]


@pytest.mark.parametrize("file", LORAS)
def test_a_lora_moves_the_picture_and_weight_zero_leaves_it(
    pipeline: Any, plain: NDArray[np.float32], file: str
) -> None:
    pipeline.load_lora_weights(str(HERE / "loras" / file), adapter_name="judged")
    try:
        pipeline.set_adapters(["judged"], [1.0])
        moved = paint(pipeline)
        pipeline.set_adapters(["judged"], [0.0])
        still = paint(pipeline)
    finally:
        pipeline.unload_lora_weights()
    assert np.array_equal(still, plain)
    assert np.abs(moved - plain).max() > 1 / 255


@torch.no_grad()
def test_the_autoencoder_gives_renderings_back(pipeline: Any, truths: list[Truth]) -> None:
    pictures = np.stack([rendered.picture for _, rendered in truths[:4]])
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    decoded = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
    back = ((decoded + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    assert np.mean([psnr(ours, truth) for ours, truth in zip(back, pictures, strict=True)]) >= 28
