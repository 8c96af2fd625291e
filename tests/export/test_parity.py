"""The built engines, through the stages that serve them, against diffusers' pipelines with the same weights and seed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from intaglio.models import SDXL, numpy_type
from intaglio.stages.diffuse import Diffuse
from intaglio.stages.preprocess import Preprocess
from intaglio_export.build import BuildResult

from .conftest import Checkpoint

SCHEDULERS: dict[str, Any] = {
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_a": diffusers.EulerAncestralDiscreteScheduler,
    "ddim": diffusers.DDIMScheduler,
    "dpmpp_2m_karras": diffusers.DPMSolverMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
    "lcm": diffusers.LCMScheduler,
}
SIZE = (72, 96)  # 9 x 12 latents: halving rounds


def control_image(seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8, 3), np.uint8)
    return Image.fromarray(values).resize(SIZE, Image.Resampling.BICUBIC)


def served(result: BuildResult, **request: Any) -> np.ndarray[Any, Any]:
    tensors = {name: np.asarray(value, numpy_type(SDXL.input(name).datatype)).reshape(-1) for name, value in request.items()}
    with Preprocess(result.manifest, result.folder) as preprocess, Diffuse(result.manifest, result.folder) as diffuse:
        arrays = dict(preprocess(tensors))
        arrays.pop("output_format"), arrays.pop("metadata")
        pixels: np.ndarray[Any, Any] = diffuse(arrays)["pixels"]
    return pixels


def psnr(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    assert a.shape == b.shape
    assert min(a.std(), b.std()) > 3  # a flat image would equal any flat image
    error = float(np.mean((a.astype(float) - b.astype(float)) ** 2))
    return 100.0 if error == 0 else 10 * np.log10(255**2 / error)


def fused(checkpoint: Checkpoint, pipeline: Any) -> Any:
    """The set that `built` fuses, by diffusers alone."""
    pipeline.load_lora_weights(str(checkpoint.lora("style")), adapter_name="a")
    pipeline.load_lora_weights(str(checkpoint.lora("character")), adapter_name="b")
    pipeline.set_adapters(["a", "b"], [1.0, 0.7])
    return pipeline


@pytest.mark.parametrize(("scheduler", "guidance", "controls"), [
    ("euler", 5.0, ()), ("euler", 1.0, ("pose",)), ("dpmpp_2m_karras", 4.0, ("pose", "canny")), ("euler_a", 3.0, ()),
    ("ddim", 5.0, ("canny",)), ("unipc", 5.0, ()), ("lcm", 1.0, ()),
])  # fmt: skip
def test_images_equal_diffusers(
    checkpoint: Checkpoint, built: tuple[Path, BuildResult], scheduler: str, guidance: float, controls: tuple[str, ...]
) -> None:
    steps, seed, prompt, negative = 5, 11, "a red fox in a meadow", "blurry"
    pipeline = fused(checkpoint, checkpoint.pipeline(controls=controls))
    karras = {"use_karras_sigmas": True} if scheduler.endswith("karras") else {}
    pipeline.scheduler = SCHEDULERS[scheduler].from_config(pipeline.scheduler.config, **karras)
    extra: dict[str, Any] = {}
    images = [control_image(index) for index in range(len(controls))]
    if controls:
        extra = {"image": images, "controlnet_conditioning_scale": [0.8] * len(controls)}
    theirs = pipeline(
        prompt=prompt, negative_prompt=negative, num_inference_steps=steps, guidance_scale=guidance, width=SIZE[0], height=SIZE[1],
        generator=torch.Generator("cpu").manual_seed(seed), output_type="np", **extra,
    ).images  # fmt: skip
    encoded = []
    for image in images:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    request: dict[str, Any] = {
        "prompt": [prompt.encode()], "negative_prompt": [negative.encode()], "seed": [seed], "steps": [steps], "width": [SIZE[0]],
        "height": [SIZE[1]], "guidance_scale": [guidance], "scheduler": [scheduler.encode()],
    }  # fmt: skip
    if controls:
        request["images"] = np.array(encoded, object)
        request["controls"] = [json.dumps([{"type": name, "image": index, "weight": 0.8} for index, name in enumerate(controls)]).encode()]
    assert psnr(served(built[1], **request), (theirs * 255).round().astype(np.uint8)) >= 40


def test_loras_change_the_image(checkpoint: Checkpoint, built: tuple[Path, BuildResult]) -> None:
    plain = checkpoint.pipeline()(
        prompt="a red fox", num_inference_steps=4, guidance_scale=5.0, width=64, height=64,
        generator=torch.Generator("cpu").manual_seed(3), output_type="np",
    ).images  # fmt: skip
    ours = served(built[1], prompt=[b"a red fox"], seed=[3], steps=[4], guidance_scale=[5.0], width=[64], height=[64])
    assert psnr(ours, (plain * 255).round().astype(np.uint8)) < 40
