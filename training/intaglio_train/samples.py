"""Pictures drawn during training, with the model's own sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLControlNetPipeline
from numpy.typing import NDArray

from intaglio_train.base_model import BaseModel
from intaglio_train.config import SampleConfig
from intaglio_train.pictures import Pixels

__all__ = ["draw", "grid_of"]


def grid_of(rows: Sequence[Sequence[Pixels]]) -> Pixels:
    """One picture [H,W,3] of rows of pictures of one size."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


@torch.no_grad()
def draw(
    base: BaseModel,
    samples: SampleConfig,
    size: tuple[int, int],
    *,
    accelerator: Any,
    controlnet: Any = None,
    controls: Pixels | None = None,
) -> list[Pixels]:
    """One picture a prompt, each from the same seed; `controls` [prompts,H,W,3] steer `controlnet`."""
    pipeline = base.pipeline()
    extra: list[dict[str, Any]] = [{} for _ in samples.prompts]
    if controlnet is not None and controls is not None:
        pipeline = StableDiffusionXLControlNetPipeline(  # type: ignore[no-untyped-call]
            **{
                name: part
                for name, part in pipeline.components.items()
                if name not in ("image_encoder", "feature_extractor")
            },
            controlnet=controlnet,
            force_zeros_for_empty_prompt=base.zero_empty_prompt,
            add_watermarker=False,
        )
        extra = [
            {"image": torch.from_numpy(control).permute(2, 0, 1)[None].float() / 255.0}
            for control in controls
        ]
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = type(base.scheduler).from_config(base.scheduler.config)
    modes = {part: part.training for part in (base.unet, *base.text_encoders, controlnet) if part is not None}
    try:
        for part in modes:
            part.eval()
        return [
            _picture(base, pipeline, samples, size, accelerator, {"prompt": prompt, **more})
            for prompt, more in zip(samples.prompts, extra, strict=True)
        ]
    finally:
        for part, mode in modes.items():
            part.train(mode)


def _picture(
    base: BaseModel,
    pipeline: Any,
    samples: SampleConfig,
    size: tuple[int, int],
    accelerator: Any,
    asked: dict[str, Any],
) -> NDArray[np.uint8]:
    with accelerator.autocast():
        latents = pipeline(
            **asked,
            negative_prompt=samples.negative_prompt,
            width=size[0],
            height=size[1],
            num_inference_steps=samples.steps,
            guidance_scale=samples.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(samples.seed),
            output_type="latent",
        ).images
    # Outside autocast: SDXL's autoencoder overflows in fp16.
    mean = base.vae.config.latents_mean
    std = base.vae.config.latents_std
    latents = latents.to(base.vae.dtype) / base.vae.config.scaling_factor
    if mean is not None and std is not None:
        latents = latents * latents.new_tensor(std).view(1, -1, 1, 1) + latents.new_tensor(mean).view(
            1, -1, 1, 1
        )
    pixels = (base.vae.decode(latents).sample[0].permute(1, 2, 0) * 127.5 + 127.5).round().clamp(0, 255)
    return pixels.to("cpu", torch.uint8).numpy()  # type: ignore[no-any-return]
