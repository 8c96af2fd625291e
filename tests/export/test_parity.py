"""Built engines against diffusers in cases that the served miniature does not have.

A size that halving rounds, several fused LoRAs, chained controls.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from intaglio.contract.models import SDXL
from intaglio.contract.ports import numpy_type
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess
from intaglio_export.build import BuildResult

from ..checkpoint import Checkpoint
from ..parity import psnr, scheduler_for
from ..stability_layout import controlnet_tensors
from ..tiny import make_union
from .conftest import done, run_build, write_config

CONTROLS = ("pose", "canny")
SIZE = (72, 96)  # 9 x 12 latents


def control_image(seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8, 3), np.uint8)
    return Image.fromarray(values).resize(SIZE, Image.Resampling.BICUBIC)


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def served(result: BuildResult, **request: Any) -> np.ndarray[Any, Any]:
    tensors = {
        name: np.array(value, numpy_type(SDXL.input(name).datatype)).reshape(-1)
        for name, value in request.items()
    }
    with (
        Preprocess(result.manifest, result.folder) as preprocess,
        Diffuse(result.manifest, result.folder) as diffuse,
    ):
        arrays = dict(preprocess(tensors))
        arrays.pop("output_format"), arrays.pop("metadata")
        pixels: np.ndarray[Any, Any] = diffuse(arrays)["pixels"]
    return pixels


def test_two_loras_and_two_controls(checkpoint: Checkpoint, built: tuple[Path, BuildResult]) -> None:
    images = [control_image(index) for index in range(len(CONTROLS))]
    ours = served(
        built[1],
        prompt=b"a red fox",
        negative_prompt=b"blurry",
        seed=11,
        steps=5,
        width=SIZE[0],
        height=SIZE[1],
        guidance_scale=4.0,
        scheduler=b"dpmpp_2m_karras",
        images=[encoded(image) for image in images],
        controls=json.dumps(
            [{"type": name, "image": index, "weight": 0.8} for index, name in enumerate(CONTROLS)]
        ).encode(),
    )
    pipeline = checkpoint.pipeline(controls=CONTROLS)
    pipeline.scheduler = scheduler_for("dpmpp_2m_karras", pipeline.scheduler.config)
    pipeline.load_lora_weights(str(checkpoint.lora("style")), adapter_name="style")
    pipeline.load_lora_weights(str(checkpoint.lora("character")), adapter_name="character")

    def theirs(*weights: float) -> np.ndarray[Any, Any]:
        pipeline.set_adapters(["style", "character"], list(weights))
        made: np.ndarray[Any, Any] = pipeline(
            prompt="a red fox",
            negative_prompt="blurry",
            num_inference_steps=5,
            guidance_scale=4.0,
            width=SIZE[0],
            height=SIZE[1],
            image=images,
            controlnet_conditioning_scale=[0.8, 0.8],
            generator=torch.Generator("cpu").manual_seed(11),
            output_type="np",
        ).images
        return made

    # These random weights let a LoRA move a picture by little: 40 dB would not notice that one is missing.
    assert psnr(ours, theirs(1.0, 0.7)) >= 65
    assert max(psnr(ours, theirs(*wrong)) for wrong in ((1.0, 0.0), (0.0, 0.7), (0.7, 1.0))) < 60


def test_a_union_and_a_controlnet_of_single_files(copied: Path, checkpoint: Checkpoint) -> None:
    """Two controls of the union in one pass, the first of them in a window."""
    pipeline = checkpoint.pipeline()
    pose: Any = diffusers.ControlNetModel.from_pretrained(checkpoint.controlnet("pose"))
    union = make_union(pose)
    files = {"pose": controlnet_tensors(pose), "all": union.state_dict()}
    for name, tensors in files.items():
        save_file({key: one.clone() for key, one in tensors.items()}, copied.parent / f"{name}.safetensors")
    controlnets = {
        "pose": {"file": "pose.safetensors", "type": "pose"},
        "all": {"file": "all.safetensors", "union": {"depth": "depth", "seg": {"mode": 5}}},
    }
    result, watcher = run_build(write_config(copied, checkpoint, controlnets=controlnets))
    assert "onnx/controlnet_union_context.all" in done(watcher)
    images = [control_image(index) for index in range(2)]
    asked = [
        {"type": "depth", "image": 0, "weight": 0.8, "end": 0.7},
        {"type": "seg", "image": 1, "weight": 1.3},
    ]
    ours = served(
        result,
        prompt=b"a red fox",
        negative_prompt=b"blurry",
        seed=11,
        steps=4,
        width=SIZE[0],
        height=SIZE[1],
        guidance_scale=4.0,
        scheduler=b"euler",
        images=[encoded(image) for image in images],
        controls=json.dumps(asked).encode(),
    )
    pipeline.load_lora_weights(str(checkpoint.lora("style")), adapter_name="style")
    pipeline.load_lora_weights(str(checkpoint.lora("character")), adapter_name="character")
    pipeline.set_adapters(["style", "character"], [1.0, 0.7])
    united = diffusers.StableDiffusionXLControlNetUnionPipeline(
        **pipeline.components, controlnet=union, add_watermarker=False
    )
    united.set_progress_bar_config(disable=True)

    def theirs(modes: list[int]) -> np.ndarray[Any, Any]:
        made: np.ndarray[Any, Any] = united(
            prompt="a red fox",
            negative_prompt="blurry",
            num_inference_steps=4,
            guidance_scale=4.0,
            width=SIZE[0],
            height=SIZE[1],
            control_image=images,
            control_mode=modes,
            controlnet_conditioning_scale=[0.8, 1.3],
            control_guidance_start=[0.0, 0.0],
            control_guidance_end=[0.7, 1.0],
            generator=torch.Generator("cpu").manual_seed(11),
            output_type="np",
        ).images
        return made

    assert psnr(ours, theirs([1, 5])) >= 65
    assert psnr(ours, theirs([5, 1])) < 50
