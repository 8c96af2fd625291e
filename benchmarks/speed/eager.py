"""diffusers on the same weights: eager, or with torch.compile for UNet, ControlNet and VAE decoder.

    python -m benchmarks.speed.eager CASE.json WORK_FOLDER [--peer compiled]
The peer `strongest` is what PyTorch can do: channels last, queries, keys and values in one product, and
torch.compile with CUDA graphs (mode reduce-overhead).
Everything runs in float16 on a card (the VAE too, as in intaglio) and in float32 on the CPU. The pipeline is
given its noise. torch 2.11 draws float16 from the low 11 bits of its words, so a pipeline that draws its own
starts from other noise in float16 than in float32, and ends with another picture.
"""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import diffusers
import numpy as np
import torch
import transformers
import typer
from PIL import Image
from torch import Tensor

from benchmarks.measuring.case import Case
from benchmarks.measuring.results import write_part
from benchmarks.measuring.timing import PASSES, Stopwatch, spread, time_passes
from benchmarks.speed.settings import FEWER_STEPS
from intaglio.contract.sdxl import controlnet_name
from intaglio_export.engines.platform import Platform
from intaglio_export.plan.plan import Plan
from intaglio_export.plan.stages import StageStore
from intaglio_export.weights.load import load_network

__all__ = [
    "Meter",
    "Peer",
    "arrange",
    "first_noise",
    "make_image",
    "make_pipeline",
    "measure_fewer_steps",
    "meter_stages",
    "time_cfg_steps",
]

_STAGES: Final = {
    "unet": "unet",
    "controlnet": "controlnet",
    "vae_decoder": "vae.decoder",
    "text_encoder": "text_encoder",
    "text_encoder_2": "text_encoder_2",
}
"""Where a pipeline has each network."""
_COMPILED: Final = ("unet", "controlnet", "vae_decoder")
Peer = Literal["eager", "compiled", "strongest"]
_MODES: Final[dict[str, str]] = {"compiled": "default", "strongest": "reduce-overhead"}
"""torch.compile's."""


class Meter:
    """Seconds of every call of a network, by the device's own clock where it has one."""

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
        """Read the marks of an image that is done, or throw them away.

        Beside the networks there is the lap `step`, from one pass of the UNet to the next.
        """
        marks = self._marks
        self._marks = {}
        if not keep:
            return
        for name, pairs in marks.items():
            self._add(name, pairs)
        begins = [begin for begin, _ in marks.get("unet", [])]
        self._add("step", itertools.pairwise(begins))

    def _add(self, name: str, pairs: Iterable[tuple[Any, Any]]) -> None:
        for begin, end in pairs:
            self.laps.setdefault(name, []).append(self._seconds(begin, end))

    def _mark(self) -> Any:
        if self._device == "cpu":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _seconds(self, begin: Any, end: Any) -> float:
        if self._device == "cpu":
            return float(end - begin)
        return float(begin.elapsed_time(end)) / 1000


def make_pipeline(case: Case, device: str) -> Any:
    """diffusers' own pipeline of the case's base and ControlNet."""
    deployment = case.deployment
    dtype = torch.float32 if device == "cpu" else torch.float16
    platform = Platform("onnxruntime", "cpu", "", on_gpu=False)
    plan = Plan(deployment, platform, StageStore(deployment.build / ".stages"))

    def load(component: str) -> Any:
        kind = component.partition(".")[0]
        return load_network(kind, plan.components[component], base=plan.base, dtype=dtype).to(device)

    scheduler: Any = diffusers.EulerDiscreteScheduler
    parts: dict[str, Any] = {name: load(name) for name in ("text_encoder", "text_encoder_2", "unet", "vae")}
    parts["vae"].register_to_config(force_upcast=False)
    for name in ("tokenizer", "tokenizer_2"):
        parts[name] = transformers.CLIPTokenizer.from_pretrained(plan.base.root / name)
    parts["scheduler"] = scheduler.from_config(plan.base.scheduler)
    kind: Any = diffusers.StableDiffusionXLPipeline
    if case.control is not None:
        parts["controlnet"] = load(controlnet_name(case.control))
        kind = diffusers.StableDiffusionXLControlNetPipeline
    pipeline = kind(**parts, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def first_noise(case: Case, image: int, dtype: torch.dtype) -> torch.Tensor:
    """[1, 4, h, w] of the image's seed, drawn in float32 as intaglio does."""
    shape = (1, 4, case.height // 8, case.width // 8)
    generator = torch.Generator("cpu").manual_seed(case.seed_of(image))
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype)


def make_image(pipeline: Any, case: Case, image: int) -> Any:
    """The case's image `image`, a PIL picture."""
    extra: dict[str, Any] = {}
    if case.control is not None:
        extra["image"] = Image.open(io.BytesIO(case.control_image(image)))
        extra["controlnet_conditioning_scale"] = 1.0
    made = pipeline(
        prompt=case.prompt_of(image),
        negative_prompt=case.negative_prompt,
        num_inference_steps=case.steps,
        guidance_scale=case.guidance_scale,
        width=case.width,
        height=case.height,
        output_type="pil",
        latents=first_noise(case, image, pipeline.dtype).to(pipeline.device),
        **extra,
    )
    return made.images[0]


def arrange(pipeline: Any) -> None:
    """Lay the networks out as their convolutions and attentions run fastest; results stay the same."""
    networks = [pipeline.unet, pipeline.vae, getattr(pipeline, "controlnet", None)]
    for network in filter(None, networks):
        network.to(memory_format=torch.channels_last)
        network.fuse_qkv_projections()


def meter_stages(pipeline: Any, meter: Meter, *, peer: Peer) -> None:
    """Put the meter around every network; compile those that are to be compiled, inside it."""
    first = "unet" if getattr(pipeline, "controlnet", None) is None else "controlnet"
    for name, path in _STAGES.items():
        module = pipeline
        for part in path.split("."):
            module = getattr(module, part, None)
        if module is None:
            continue
        forward = module.forward
        if peer != "eager" and name in _COMPILED:
            forward = torch.compile(forward, mode=_MODES[peer])
        if peer == "strongest" and name in (first, "vae_decoder"):
            forward = _beginning_a_step(forward)
        module.forward = meter.wrap(name, forward)


def _beginning_a_step(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward`, which tells CUDA graphs that the outputs of the step before are no longer needed."""

    def begin(*arguments: Any, **named: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return forward(*arguments, **named)

    return begin


def _unet_inputs(pipeline: Any, case: Case) -> dict[str, Any]:
    """The named inputs of the UNet in the case's first step, residuals of the ControlNet among them."""
    unet = pipeline.unet
    forward = unet.forward
    given: dict[str, Any] = {}

    def note(*arguments: Any, **named: Any) -> Any:
        given.update(named)
        return forward(*arguments, **named)

    unet.forward = note
    make_image(pipeline, replace(case, steps=1), 0)
    unet.forward = forward
    return given


def _copied(value: Any) -> Any:
    """`value` with copies of the tensors in it."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, list | tuple):
        return [_copied(one) for one in value]
    if isinstance(value, dict):
        return {name: _copied(one) for name, one in value.items()}
    return value


@torch.no_grad()
def time_cfg_steps(pipeline: Any, case: Case) -> dict[str, float]:
    """Seconds of a step without its ControlNet, from latents to the next: input, UNet, guidance, solver.

    Steps follow one another without a pause, as intaglio's UNet is timed, whose graph holds the same.
    """
    given = _unet_inputs(pipeline, case)
    # Residuals lie in memory of a CUDA graph, which the next graph may write.
    given = {name: _copied(value) for name, value in given.items()}
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(PASSES, device=pipeline.device)
    timesteps = iter(scheduler.timesteps)
    latents = first_noise(case, 0, pipeline.dtype).to(pipeline.device) * scheduler.init_noise_sigma
    rows = 2 if case.guidance_scale > 1 else 1

    def step() -> None:
        nonlocal latents
        timestep = next(timesteps)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        scaled = scheduler.scale_model_input(torch.cat([latents] * rows), timestep)
        eps = pipeline.unet(scaled, timestep, **given)[0]
        if rows == 2:
            negative, positive = eps.chunk(2)
            eps = negative + case.guidance_scale * (positive - negative)
        latents = scheduler.step(eps, timestep, latents, return_dict=False)[0]

    def wait() -> None:
        if pipeline.device.type != "cpu":
            torch.cuda.synchronize()

    return time_passes(step, wait)


def measure_fewer_steps(pipeline: Any, case: Case) -> dict[str, float]:
    """Seconds of an image with the solver and the number of steps of `FEWER_STEPS`."""
    solver: Any = diffusers.DPMSolverMultistepScheduler
    pipeline.scheduler = solver.from_config(pipeline.scheduler.config, use_karras_sigmas=True)
    fewer = replace(case, steps=FEWER_STEPS["steps"])
    watch = Stopwatch()
    for image in range(-1, case.images):
        with watch.lap("first_image" if image < 0 else "end_to_end"):
            make_image(pipeline, fewer, image)
    return spread(watch.laps["end_to_end"])


def main(case: Path, work: Path, *, peer: Annotated[Peer, typer.Option("--peer")] = "eager") -> None:
    """Measure one variant of diffusers."""
    told = Case.read(case)
    told.draw_controls(told.images)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    watch = Stopwatch()
    meter = Meter(device)
    (work / peer).mkdir(parents=True, exist_ok=True)
    # What does not compile must fail here, not fall back to eager.
    torch._dynamo.config.suppress_errors = False
    with watch.lap("load"):
        pipeline = make_pipeline(told, device)
        if peer == "strongest":
            arrange(pipeline)
    meter_stages(pipeline, meter, peer=peer)
    values: dict[str, Any] = {}
    for image in range(-1, told.images):  # the first one compiles, chooses kernels, fills caches
        with watch.lap("first_image" if image < 0 else "end_to_end"):
            made = make_image(pipeline, told, image)
        meter.collect(keep=image >= 0)
        if image >= 0:
            np.save(work / peer / f"{image}.npy", np.asarray(made))
        values = {
            "seconds": watch.spreads(),
            "stages": Stopwatch(meter.laps).spreads(),
            "dtype": str(pipeline.dtype),
        }
        write_part(work, peer, values)
    values["cfg_step"] = time_cfg_steps(pipeline, told)
    write_part(work, peer, values)
    values["fewer_steps"] = measure_fewer_steps(pipeline, told)
    write_part(work, peer, values)


if __name__ == "__main__":
    typer.run(main)
