"""preprocess -> diffuse against diffusers' own pipelines, same modules, same seed: the whole request path."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from intaglio.sampling.solvers import SOLVERS
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess

from ...parity import psnr, scheduler_for


def png(seed: int, width: int, height: int) -> bytes:
    """A random image."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def ours(tiny: Any, tensors: dict[str, Any]) -> np.ndarray[Any, Any]:
    with (
        Preprocess(tiny.manifest, tiny.folder) as preprocess,
        Diffuse(tiny.manifest, tiny.folder, backend=tiny.backend) as diffuse,
    ):
        arrays = preprocess(tensors)
        del arrays["output_format"]
        del arrays["metadata"]
        pixels: np.ndarray[Any, Any] = diffuse(arrays)["pixels"]
        return pixels


def theirs(
    tiny: Any,
    scheduler: str,
    *,
    seed: int,
    controls: tuple[str, ...] = (),
    schedule: str | None = None,
    **call: Any,
) -> np.ndarray[Any, Any]:
    swapped_in = scheduler_for(scheduler, tiny.manifest.scheduler, schedule=schedule)
    pipeline = tiny.pipeline(swapped_in, controls=controls)
    images: np.ndarray[Any, Any] = pipeline(
        generator=torch.Generator("cpu").manual_seed(seed), output_type="np", **call
    ).images
    return images


# diffusers' DPM++ SDE draws its noise with a seed of its own, which a pipeline does not set.
@pytest.mark.parametrize("scheduler", [name for name in SOLVERS if name != "dpmpp_sde"])
def test_every_solver_equals_diffusers(tiny: Any, request_tensors: Any, scheduler: str) -> None:
    tensors = request_tensors(
        prompt="a red fox", negative_prompt="blurry", seed=0, steps=4, guidance_scale=6.5, scheduler=scheduler
    )
    call = {
        "prompt": "a red fox",
        "negative_prompt": "blurry",
        "num_inference_steps": 4,
        "guidance_scale": 6.5,
        "width": 64,
        "height": 96,
    }
    assert psnr(ours(tiny, tensors), theirs(tiny, scheduler, seed=0, **call)) >= 50


@pytest.mark.parametrize("rescale", [0.4, 1.0])
def test_rescaled_guidance_equals_diffusers(tiny: Any, request_tensors: Any, rescale: float) -> None:
    tensors = request_tensors(
        prompt="a red fox",
        negative_prompt="blurry",
        seed=0,
        steps=4,
        guidance_scale=50.0,
        num_images=2,
        guidance_rescale=rescale,
    )
    call = {
        "prompt": "a red fox",
        "negative_prompt": "blurry",
        "num_inference_steps": 4,
        "guidance_scale": 50.0,
        "width": 64,
        "height": 96,
        "num_images_per_prompt": 2,
    }
    rescaled = ours(tiny, tensors)
    assert psnr(rescaled, theirs(tiny, "euler", seed=0, guidance_rescale=rescale, **call)) >= 60
    assert psnr(rescaled, theirs(tiny, "euler", seed=0, **call)) < 45


@pytest.mark.parametrize("negative", [None, "blurry"])
def test_skipped_layers_of_the_text_encoders_equal_diffusers(
    tiny: Any, request_tensors: Any, negative: str | None
) -> None:
    extra = {} if negative is None else {"negative_prompt": negative}
    tensors = request_tensors(prompt="a red fox", seed=0, steps=4, guidance_scale=50.0, clip_skip=1, **extra)
    call = {
        "prompt": "a red fox",
        "negative_prompt": negative,
        "num_inference_steps": 4,
        "guidance_scale": 50.0,
        "width": 64,
        "height": 96,
    }
    skipping = ours(tiny, tensors)
    assert psnr(skipping, theirs(tiny, "euler", seed=0, clip_skip=1, **call)) >= 60
    assert psnr(skipping, theirs(tiny, "euler", seed=0, **call)) < 45


def test_a_v_prediction_model_with_zero_terminal_snr_equals_diffusers(
    tiny: Any, request_tensors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.manifest.scheduler | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    changed = replace(tiny, manifest=tiny.manifest.model_copy(update={"scheduler": config}))
    tensors = request_tensors(prompt="a fox", seed=4, steps=4, scheduler="dpmpp_2m", schedule="trailing")
    call = {
        "prompt": "a fox",
        "num_inference_steps": 4,
        "guidance_scale": 5.0,
        "width": 64,
        "height": 96,
    }
    expected = theirs(changed, "dpmpp_2m", seed=4, schedule="trailing", **call)
    assert psnr(ours(changed, tensors), expected) >= 50


def test_a_window_counts_the_model_calls_of_a_two_stage_solver_as_diffusers_does(
    tiny: Any, request_tensors: Any
) -> None:
    control = {"type": "pose", "image": 0, "weight": 0.9, "begin": 0.2, "end": 0.6}
    image = png(3, 72, 64)
    size = {"width": 72, "height": 64}
    tensors = request_tensors(
        prompt="a fox",
        seed=11,
        steps=4,
        scheduler="heun",
        images=[image],
        controls=json.dumps([control]),
        **size,
    )
    call = {
        "prompt": "a fox",
        "num_inference_steps": 4,
        "guidance_scale": 5.0,
        "image": [Image.open(io.BytesIO(image))],
        "controlnet_conditioning_scale": [0.9],
        "control_guidance_start": [0.2],
        "control_guidance_end": [0.6],
        **size,
    }
    expected = theirs(tiny, "heun", seed=11, controls=("pose",), **call)
    assert psnr(ours(tiny, tensors), expected) >= 50


@pytest.mark.parametrize("negative", [None, ""])
def test_absent_negative_is_zeros_and_an_empty_one_is_encoded(
    tiny: Any, request_tensors: Any, negative: str | None
) -> None:
    extra = {} if negative is None else {"negative_prompt": negative}
    tensors = request_tensors(prompt="a fox", seed=5, width=72, height=64, steps=3, **extra)
    call = {
        "prompt": "a fox",
        "negative_prompt": negative,
        "num_inference_steps": 3,
        "guidance_scale": 5.0,
        "width": 72,
        "height": 64,
    }
    assert psnr(ours(tiny, tensors), theirs(tiny, "euler", seed=5, **call)) >= 50


def test_three_images_without_guidance_in_passes_of_two_and_one(tiny: Any, request_tensors: Any) -> None:
    tensors = request_tensors(
        prompt="a fox", seed=2**40 + 3, steps=3, guidance_scale=1.0, num_images=3, scheduler="euler_a"
    )
    call = {
        "prompt": "a fox",
        "num_inference_steps": 3,
        "guidance_scale": 1.0,
        "num_images_per_prompt": 3,
        "width": 64,
        "height": 96,
    }
    assert psnr(ours(tiny, tensors), theirs(tiny, "euler_a", seed=2**40 + 3, **call)) >= 50


def test_two_controls_with_windows_and_weights(tiny: Any, request_tensors: Any) -> None:
    images = [png(1, 80, 50), png(2, 72, 64)]
    controls = [
        {"type": "pose", "image": 0, "weight": 0.7, "end": 0.6},
        {"type": "canny", "image": 1, "weight": 1.0, "begin": 0.25},
    ]
    tensors = request_tensors(
        prompt="a fox",
        negative_prompt="bad",
        seed=9,
        width=72,
        height=64,
        steps=5,
        images=images,
        controls=json.dumps(controls),
        num_images=2,
    )
    call = {
        "prompt": "a fox",
        "negative_prompt": "bad",
        "num_inference_steps": 5,
        "guidance_scale": 5.0,
        "width": 72,
        "height": 64,
        "image": [Image.open(io.BytesIO(data)) for data in images],
        "controlnet_conditioning_scale": [0.7, 1.0],
        "control_guidance_start": [0.0, 0.25],
        "control_guidance_end": [0.6, 1.0],
        "num_images_per_prompt": 2,
    }
    with_controls = ours(tiny, tensors)
    assert psnr(with_controls, theirs(tiny, "euler", seed=9, controls=("pose", "edges"), **call)) >= 50
    plain = {name: value for name, value in tensors.items() if name not in ("images", "controls")}
    assert np.abs(with_controls.astype(int) - ours(tiny, plain)).mean() > 1


@pytest.mark.parametrize("steps", [3, 7])
def test_two_controls_with_unequal_windows(tiny: Any, request_tensors: Any, steps: int) -> None:
    """Windows that begin and end between steps: each control takes part in the steps that diffusers says."""
    images = [png(3, 72, 64), png(4, 72, 64)]
    controls = [
        {"type": "pose", "image": 0, "weight": 0.9, "begin": 0.2, "end": 0.7},
        {"type": "canny", "image": 1, "weight": 0.6, "begin": 0.0, "end": 0.45},
    ]
    tensors = request_tensors(
        prompt="a fox",
        negative_prompt="bad",
        seed=11,
        width=72,
        height=64,
        steps=steps,
        images=images,
        controls=json.dumps(controls),
    )
    call = {
        "prompt": "a fox",
        "negative_prompt": "bad",
        "num_inference_steps": steps,
        "guidance_scale": 5.0,
        "width": 72,
        "height": 64,
        "image": [Image.open(io.BytesIO(data)) for data in images],
        "controlnet_conditioning_scale": [0.9, 0.6],
        "control_guidance_start": [0.2, 0.0],
        "control_guidance_end": [0.7, 0.45],
    }
    expected = theirs(tiny, "euler", seed=11, controls=("pose", "edges"), **call)
    assert psnr(ours(tiny, tensors), expected) >= 50


def reused(forward: Any, computed: set[int]) -> Any:
    """The ControlNet `forward`, which computes in the steps `computed` and else repeats its last result."""
    steps = itertools.count()
    last: list[Any] = []

    def made(*args: Any, conditioning_scale: float = 1.0, **call: Any) -> Any:
        if next(steps) in computed or not last:  # diffusers also runs it before its window, with scale 0
            last[:] = [forward(*args, conditioning_scale=1.0, **call)]
        down, mid = last[0]
        return [residual * conditioning_scale for residual in down], mid * conditioning_scale

    return made


@pytest.mark.parametrize(
    ("pose", "edges", "computed"),
    [
        ({"every": 2}, {"every": 2}, ({0, 2, 4, 6}, {0, 2, 4, 6})),
        ({"every": 1}, {"every": 3}, (set(range(8)), {0, 3, 6})),
        ({"every": 3}, {"every": 2}, ({0, 3, 6}, {0, 2, 3, 4, 6})),
        ({"every": 2, "begin": 0.35, "end": 0.9}, {"every": 3}, ({3, 5, 6}, {0, 3, 6})),
    ],
)
def test_residuals_that_are_kept_equal_diffusers_with_the_same_policy(
    tiny: Any, request_tensors: Any, monkeypatch: pytest.MonkeyPatch, pose: Any, edges: Any, computed: Any
) -> None:
    images = [png(5, 72, 64), png(6, 72, 64)]
    windows = [{"begin": 0.0, "end": 1.0} | pose, {"begin": 0.0, "end": 1.0} | edges]
    controls = [{"type": "pose", "image": 0, **windows[0]}, {"type": "canny", "image": 1, **windows[1]}]
    tensors = request_tensors(
        prompt="a fox",
        negative_prompt="bad",
        seed=13,
        width=72,
        height=64,
        steps=8,
        images=images,
        controls=json.dumps(controls),
        num_images=2,
    )
    call = {
        "prompt": "a fox",
        "negative_prompt": "bad",
        "num_inference_steps": 8,
        "guidance_scale": 5.0,
        "width": 72,
        "height": 64,
        "image": [Image.open(io.BytesIO(data)) for data in images],
        "controlnet_conditioning_scale": [1.0, 1.0],
        "control_guidance_start": [window["begin"] for window in windows],
        "control_guidance_end": [window["end"] for window in windows],
        "num_images_per_prompt": 2,
    }
    kept = ours(tiny, tensors)
    for control, steps in zip(("pose", "edges"), computed, strict=True):
        module = tiny.modules[f"controlnet.{control}"]
        monkeypatch.setattr(module, "forward", reused(module.forward, steps))
    assert psnr(kept, theirs(tiny, "euler", seed=13, controls=("pose", "edges"), **call)) >= 50
