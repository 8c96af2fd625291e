"""A VAE whose latents have a mean and a standard deviation: the decoder gets what diffusers gives it."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess

from ...parity import psnr, scheduler_for

MEAN, STD = (-1.5, 0.75, 2.0, -0.5), (2.5, 0.6, 1.7, 3.0)


def with_statistics(tiny: Any, **statistics: Any) -> Any:
    """The tiny pipeline with `latents_mean` and `latents_std` in its VAE's configuration."""
    vae = copy.deepcopy(tiny.modules["vae"])
    vae.register_to_config(**statistics)
    both = len(statistics) == 2
    manifest = tiny.manifest.model_copy(update=statistics if both else {})
    return dataclasses.replace(tiny, modules=tiny.modules | {"vae": vae}, manifest=manifest)


def ours(tiny: Any, tensors: dict[str, Any]) -> np.ndarray[Any, Any]:
    with (
        Preprocess(tiny.manifest, tiny.folder) as preprocess,
        Diffuse(tiny.manifest, tiny.folder, backend=tiny.backend) as diffuse,
    ):
        arrays = dict(preprocess(tensors))
        arrays.pop("output_format")
        arrays.pop("metadata")
        pixels: np.ndarray[Any, Any] = diffuse(arrays)["pixels"]
        return pixels


@pytest.mark.parametrize(
    "statistics", [{"latents_mean": MEAN, "latents_std": STD}, {"latents_mean": MEAN}, {"latents_std": STD}]
)
def test_pictures_equal_diffusers(tiny: Any, request_tensors: Any, statistics: dict[str, Any]) -> None:
    changed = with_statistics(tiny, **statistics)
    tensors = request_tensors(prompt="a red fox", seed=0, steps=4, guidance_scale=5.0, scheduler="euler")
    pipeline = changed.pipeline(scheduler_for("euler", tiny.manifest.scheduler))
    theirs = pipeline(
        prompt="a red fox",
        num_inference_steps=4,
        guidance_scale=5.0,
        width=64,
        height=96,
        generator=torch.Generator("cpu").manual_seed(0),
        output_type="np",
    ).images
    assert psnr(ours(changed, tensors), theirs) >= 60
    if len(statistics) == 2:
        assert psnr(ours(tiny, tensors), theirs) < 40, "the statistics change this picture"
