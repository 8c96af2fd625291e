"""A UNet like SSD-1B's, with a ControlNet of its own: pictures equal diffusers'."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from intaglio.contract.architecture import architecture_from_configs
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess

from ...parity import psnr, scheduler_for


def asymmetric(tiny: Any) -> Any:
    """No attention in the middle, and another number of transformer layers in every layer."""
    torch.manual_seed(1)
    own = {key: value for key, value in tiny.modules["unet"].config.items() if not key.startswith("_")}
    config = own | {
        "layers_per_block": 2,
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": [[1], [2, 1], [1, 2]],
        "reverse_transformer_layers_per_block": [[2, 1, 1], [1, 1, 2], 1],
    }
    unet = diffusers.UNet2DConditionModel.from_config(config).eval().requires_grad_(False)
    control: Any = diffusers.ControlNetModel.from_config(
        config | {"conditioning_embedding_out_channels": (4, 4, 8, 8)}
    )
    for parameter in control.parameters():  # its zero convolutions would hide mistakes
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    modules = tiny.modules | {"unet": unet, "controlnet.pose": control.eval().requires_grad_(False)}
    architecture = architecture_from_configs(
        unet.config,
        text_encoder=modules["text_encoder"].config.to_dict(),
        text_encoder_2=modules["text_encoder_2"].config.to_dict(),
        vae=modules["vae"].config,
    )
    manifest = tiny.manifest.model_copy(update={"architecture": architecture})
    return dataclasses.replace(tiny, modules=modules, manifest=manifest)


def test_pictures_equal_diffusers(tiny: Any, request_tensors: Any) -> None:
    changed = asymmetric(tiny)
    drawn = np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "PNG")
    tensors = request_tensors(
        prompt="a red fox", seed=0, steps=3, guidance_scale=5.0, scheduler="euler",
        images=[buffer.getvalue()], controls=json.dumps([{"type": "pose", "image": 0, "weight": 0.8}]),
    )  # fmt: skip
    with (
        Preprocess(changed.manifest, changed.folder) as preprocess,
        Diffuse(changed.manifest, changed.folder, backend=changed.backend) as diffuse,
    ):
        arrays = dict(preprocess(tensors))
        arrays.pop("output_format")
        arrays.pop("metadata")
        ours = diffuse(arrays)["pixels"]
    pipeline = changed.pipeline(scheduler_for("euler", tiny.manifest.scheduler), controls=("pose",))
    theirs = pipeline(
        prompt="a red fox", num_inference_steps=3, guidance_scale=5.0, width=64, height=96,
        image=[Image.fromarray(drawn)], controlnet_conditioning_scale=[0.8],
        generator=torch.Generator("cpu").manual_seed(0), output_type="np",
    ).images  # fmt: skip
    assert psnr(ours, theirs) >= 50
