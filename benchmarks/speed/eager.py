"""diffusers on the same weights: eager, or with torch.compile for UNet, ControlNet and VAE decoder.

    python -m benchmarks.speed.eager CASE.json WORK_FOLDER [--compile]
Float16 throughout on a card (the VAE too, as intaglio's), float32 on the CPU. The noise is given, not drawn
by the pipeline: torch 2.11 draws float16 from the low 11 bits of its words, so a pipeline in float16 starts a
seed from quite another picture than one in float32.
"""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import diffusers
import numpy as np
import torch
import transformers
import typer
from PIL import Image

from benchmarks.measuring.case import PASSES, Case, Stopwatch, time_passes
from benchmarks.measuring.results import write_part
from intaglio.contract.sdxl import controlnet_name
from intaglio_export.engines.platform import Platform
from intaglio_export.plan.plan import Plan
from intaglio_export.plan.stages import StageStore
from intaglio_export.weights.load import load_network

_STAGES = {
    "unet": "unet",
    "controlnet": "controlnet",
    "vae_decoder": "vae.decoder",
    "text_encoder": "text_encoder",
    "text_encoder_2": "text_encoder_2",
}
_COMPILED = ("unet", "controlnet", "vae_decoder")


class Meter:
    """Seconds of every call of a module, by the device's own clock where it has one."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._marks: dict[str, list[tuple[Any, Any]]] = {}
        self.laps: dict[str, list[float]] = {}

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            begin = self._mark()
            output = function(*arguments, **named)
            self._marks.setdefault(name, []).append((begin, self._mark()))
            return output

        return timed

    def collect(self, *, keep: bool) -> None:
        """Read the marks of an image that is done; `keep` False throws them away. A `step` is from one UNet
        pass to the next.
        """
        marks = self._marks if keep else {}
        for name, pairs in marks.items():
            self.laps.setdefault(name, []).extend(self._seconds(begin, end) for begin, end in pairs)
        for one, other in itertools.pairwise(begin for begin, _ in marks.get("unet", [])):
            self.laps.setdefault("step", []).append(self._seconds(one, other))
        self._marks = {}

    def _mark(self) -> Any:
        if self._device == "cpu":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _seconds(self, begin: Any, end: Any) -> float:
        return float(end - begin if self._device == "cpu" else begin.elapsed_time(end) / 1000)


def make_pipeline(case: Case, device: str) -> Any:
    """diffusers' own pipeline of the case's base and ControlNet."""
    deployment, dtype = case.deployment, torch.float32 if device == "cpu" else torch.float16
    plan = Plan(
        deployment, Platform("onnxruntime", "cpu", "", on_gpu=False), StageStore(deployment.build / ".stages")
    )

    def load(component: str) -> Any:
        return load_network(
            component.partition(".")[0], plan.components[component], base=plan.base, dtype=dtype
        ).to(device)

    parts: dict[str, Any] = {name: load(name) for name in ("text_encoder", "text_encoder_2", "unet", "vae")}
    parts["vae"].register_to_config(force_upcast=False)
    for name in ("tokenizer", "tokenizer_2"):
        parts[name] = transformers.CLIPTokenizer.from_pretrained(plan.base.root / name)
    parts["scheduler"] = diffusers.EulerDiscreteScheduler.from_config(plan.base.scheduler)  # type: ignore[no-untyped-call]
    if case.control is None:
        pipeline: Any = diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False)  # type: ignore[no-untyped-call]
    else:
        parts["controlnet"] = load(controlnet_name(case.control))
        pipeline = diffusers.StableDiffusionXLControlNetPipeline(**parts, add_watermarker=False)  # type: ignore[no-untyped-call]
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def first_noise(case: Case, image: int, dtype: torch.dtype) -> torch.Tensor:
    """[1, 4, h, w] of the image's seed, drawn in float32 as intaglio does."""
    shape = (1, 4, case.height // 8, case.width // 8)
    return torch.randn(
        shape, generator=torch.Generator("cpu").manual_seed(case.seed_of(image)), dtype=torch.float32
    ).to(dtype)


def make_image(pipeline: Any, case: Case, image: int) -> Any:
    """The case's image `image`, a PIL picture."""
    extra: dict[str, Any] = {}
    if case.control is not None:
        extra = {
            "image": Image.open(io.BytesIO(case.control_image(image))),
            "controlnet_conditioning_scale": 1.0,
        }
    return pipeline(
        prompt=case.prompt_of(image), negative_prompt=case.negative_prompt, num_inference_steps=case.steps,
        guidance_scale=case.guidance_scale, width=case.width, height=case.height, output_type="pil",
        latents=first_noise(case, image, pipeline.dtype).to(pipeline.device), **extra,
    ).images[0]  # fmt: skip


def meter_stages(pipeline: Any, meter: Meter, *, compiled: bool) -> None:
    """Put the meter, and the compiler under it, around every network."""
    for name, path in _STAGES.items():
        module = pipeline
        for part in path.split("."):
            module = getattr(module, part, None)
        if module is not None:
            forward = torch.compile(module.forward) if compiled and name in _COMPILED else module.forward
            module.forward = meter.wrap(name, forward)


@torch.no_grad()
def time_cfg_steps(pipeline: Any, case: Case) -> dict[str, float]:
    """Seconds of a step without its ControlNet, one after another as intaglio's UNet is timed, whose graph
    holds the same.

    From latents to the next: input, UNet with residuals, guidance, solver.
    """
    unet, scheduler, given = pipeline.unet, pipeline.scheduler, {}
    forward = unet.forward

    def note(*arguments: Any, **named: Any) -> Any:
        given.update(named)
        return forward(*arguments, **named)

    unet.forward = note
    make_image(pipeline, replace(case, steps=1), 0)
    unet.forward = forward
    scheduler.set_timesteps(PASSES, device=pipeline.device)
    timesteps = iter(scheduler.timesteps)
    latents = first_noise(case, 0, pipeline.dtype).to(pipeline.device) * scheduler.init_noise_sigma

    rows = 2 if case.guidance_scale > 1 else 1

    def step() -> None:
        nonlocal latents
        timestep = next(timesteps)
        scaled = scheduler.scale_model_input(torch.cat([latents] * rows), timestep)
        eps = unet(scaled, timestep, **given)[0]
        if rows == 2:
            negative, positive = eps.chunk(2)
            eps = negative + case.guidance_scale * (positive - negative)
        latents = scheduler.step(eps, timestep, latents, return_dict=False)[0]

    return time_passes(step, (lambda: None) if pipeline.device.type == "cpu" else torch.cuda.synchronize)


def main(case: Path, work: Path, *, compiled: Annotated[bool, typer.Option("--compile")] = False) -> None:
    """Measure one variant of diffusers."""
    told, device = Case.read(case), "cuda" if torch.cuda.is_available() else "cpu"
    name, watch, meter = "compiled" if compiled else "eager", Stopwatch(), Meter(device)
    (work / name).mkdir(parents=True, exist_ok=True)
    told.draw_controls(told.images)
    if compiled:
        # A context is measured here, not a kernel: an error is said, not worked around.
        torch._dynamo.config.suppress_errors = False
    with watch.lap("load"):
        pipeline = make_pipeline(told, device)
    meter_stages(pipeline, meter, compiled=compiled)
    for image in range(-1, told.images):  # the first one compiles, chooses kernels, fills caches
        with watch.lap("first_image" if image < 0 else "end_to_end"):
            made = make_image(pipeline, told, image)
        meter.collect(keep=image >= 0)
        if image >= 0:
            np.save(work / name / f"{image}.npy", np.asarray(made))
        values = {
            "seconds": watch.spreads(),
            "stages": Stopwatch(meter.laps).spreads(),
            "dtype": str(pipeline.dtype),
        }
        write_part(work, name, values)
    write_part(work, name, values | {"cfg_step": time_cfg_steps(pipeline, told)})


if __name__ == "__main__":
    typer.run(main)
