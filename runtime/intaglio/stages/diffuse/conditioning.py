"""A request's tensors, read and checked against each other and against the build.

Axes: B images, R prompts ([negative; positive] or the positive one alone), k chunks, n steps of the whole
trajectory, c controls, K = 4 solver rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.models import CONDITIONING, DIFFUSE
from intaglio.contract.ports import Tensors, read_tensors, scalar
from intaglio.errors import InvalidRequest
from intaglio.loras.sets import set_from_json
from intaglio.request.limits import (
    TOKEN_WEIGHTS,
    Workload,
    check_clip_skip,
    check_limits,
    check_resident,
    check_size,
    check_window,
    inside_window,
)
from intaglio.request.request import ResolvedControl
from intaglio.request.texts import JSON_BYTES, read_json_list, read_text
from intaglio.stages.diffuse.links import ControlLink, ControlPlan, chain_links
from intaglio.stages.timings import read_timings

__all__ = [
    "Conditioning",
    "check_token_ids",
    "read_conditioning",
]

Floats = NDArray[np.float32]
_FINITE: Final = ("time_ids", "timesteps", "input_scale", "coefficients", "noise", "state")
"""Tensors whose values have no other bound than that they are finite."""


@dataclass(frozen=True, slots=True)
class Conditioning:
    """A request's tensors, checked; shapes are those of `models.DIFFUSE`."""

    token_ids: NDArray[np.int64]
    token_weights: Floats
    clip_skip: int
    zero_negative: bool
    time_ids: Floats
    guidance_scale: float
    guidance_rescale: float
    timesteps: Floats
    input_scale: Floats
    coefficients: Floats
    noise: Floats
    state: Floats
    links: tuple[ControlLink, ...]
    """The controls, in the order of the request."""
    guidance_window: tuple[float, float]
    loras: tuple[ResolvedLora, ...]
    begin: int
    end: int
    timings: dict[str, float]

    @property
    def prompts(self) -> int:
        """R."""
        return self.token_ids.shape[1]

    @property
    def chunks(self) -> int:
        """k, of every prompt."""
        return self.token_ids.shape[2]

    @property
    def guidance(self) -> bool:
        """Whether both prompts take part."""
        return self.prompts == 2

    def skipped_layers(self, prompt: int) -> int:
        """How many layers of the text encoders are skipped for `prompt`; none for the negative one."""
        return self.clip_skip if prompt == self.prompts - 1 else 0

    def guided(self, step: int) -> bool:
        """Whether the negative prompt takes part in `step`."""
        return inside_window(self.guidance_window, step, self.steps)

    @property
    def active_controlnets(self) -> list[str]:
        """Networks of the ControlNets that take part in any step from the slice on.

        What no step changes is computed for all of these steps, also where a caller cuts the slices.
        """
        steps = range(self.begin, self.steps)
        return [link.network for link in self.links if any(link.active(step, self.steps) for step in steps)]

    @property
    def steps(self) -> int:
        """n, of the whole trajectory."""
        return len(self.timesteps)


def read_conditioning(tensors: Tensors, manifest: BuildManifest) -> Conditioning:
    """The inputs of `models.DIFFUSE`.

    Any client may call the model, so nothing about the tensors is assumed. Sizes come first: no later check
    does work that they do not bound.

    Raises:
        InvalidRequest: tensors that do not fit each other or the build, or that exceed the limits of a
            request.
    """
    found = read_tensors(tensors, DIFFUSE.inputs)
    for port in CONDITIONING:
        if not port.optional and port.name not in found:
            raise InvalidRequest(port.name, "missing", allowed=port.doc)
    controls = read_json_list(found, "controls", ResolvedControl, most=manifest.limits.controls)
    size = _check_workload(found, manifest, controls=len(controls))
    _check_shapes(found, manifest)
    _check_values(found)
    steps = len(found["timesteps"])
    begin = scalar(found, DIFFUSE.input("begin"), 0)
    end = scalar(found, DIFFUSE.input("end"), steps)
    if not 0 <= begin <= end <= steps:
        raise InvalidRequest("begin", f"slice {begin} to {end}", allowed=f"0 <= begin <= end <= {steps}")
    request = Conditioning(
        token_ids=found["token_ids"],
        token_weights=found["token_weights"],
        clip_skip=scalar(found, DIFFUSE.input("clip_skip"), 0),
        zero_negative=bool(found["zero_negative"][0]),
        time_ids=found["time_ids"],
        guidance_scale=scalar(found, DIFFUSE.input("guidance_scale")),
        guidance_rescale=scalar(found, DIFFUSE.input("guidance_rescale"), 0.0),
        timesteps=found["timesteps"],
        input_scale=found["input_scale"],
        coefficients=found["coefficients"],
        noise=found["noise"],
        state=found["state"],
        links=chain_links(_control_plans(controls, found["control_maps"], manifest, size=size)),
        guidance_window=_window(found),
        loras=_loras(found, most=manifest.limits.loras),
        begin=begin,
        end=end,
        timings=read_timings(found),
    )
    check_clip_skip(request.clip_skip, most=manifest.architecture.most_clip_skip)
    _check_prompts(request, manifest)
    return request


def check_token_ids(request: Conditioning, vocabularies: Sequence[int]) -> None:
    """Check the ids against the number of tokens that each encoder knows.

    Raises:
        InvalidRequest: an id outside the vocabulary, for which an engine would read foreign memory.
    """
    for ids, size in zip(request.token_ids, vocabularies, strict=True):
        wrong = ids[(ids < 0) | (ids >= size)]
        if wrong.size:
            raise InvalidRequest("token_ids", f"id {wrong[0]}", allowed=f"0 to {size - 1}")


# --- reading ---


def _control_plans(
    controls: Sequence[ResolvedControl],
    maps: NDArray[np.uint8],
    manifest: BuildManifest,
    *,
    size: tuple[int, int],
) -> tuple[ControlPlan, ...]:
    """`size` is (width, height) in pixels."""
    expected = (len(controls), size[1], size[0], 3) if controls else (1, 1, 1, 3)
    if maps.shape != expected:
        problem = f"shape {list(maps.shape)} for {len(controls)} controls"
        raise InvalidRequest("control_maps", problem, allowed=str(list(expected)))
    plans = []
    for index, (entry, pixels) in enumerate(zip(controls, maps, strict=False)):
        field = f"controls[{index}]"
        if entry.control not in manifest.controlnets:
            known = ", ".join(manifest.controlnets) or "none: this deployment has no ControlNets"
            raise InvalidRequest(f"{field}.control", f"{entry.control!r} is unknown", allowed=known)
        check_window(entry.begin, entry.end, field=f"{field}.begin")
        union = manifest.unions.get(entry.control)
        plan = ControlPlan(
            network=manifest.control_network(entry.control),
            map=pixels,
            weight=entry.weight,
            begin=entry.begin,
            end=entry.end,
            every=entry.every,
            mode=None if union is None else union.mode,
        )
        plans.append(plan)
    check_resident([entry.control for entry in controls if entry.weight], manifest)
    return tuple(plans)


def _window(found: Tensors) -> tuple[float, float]:
    values = found.get("guidance_window", np.array([0, 1], np.float32))
    # The shortest decimal of a float32: 0.7 is meant, and 7 of 10 steps are inside it.
    begin, end = (float(str(value)) for value in values)
    check_window(begin, end, field="guidance_window")
    return begin, end


def _loras(found: Tensors, *, most: int) -> tuple[ResolvedLora, ...]:
    text = read_text(found, "loras", most=JSON_BYTES, unit="bytes of JSON")
    try:
        loras = set_from_json(text.encode())
    except ValueError as error:
        raise InvalidRequest(
            "loras", "not a resolved set", allowed="what preprocess makes of a request's loras"
        ) from error
    if len(loras) > most:
        raise InvalidRequest("loras", f"{len(loras)} LoRAs", allowed=f"at most {most}")
    if len({lora.sha256 for lora in loras}) < len(loras):
        raise InvalidRequest("loras", "a file is named twice", allowed="each LoRA once")
    return loras


# --- checks ---


def _check_workload(found: Tensors, manifest: BuildManifest, *, controls: int) -> tuple[int, int]:
    """(width, height) in pixels: a built size, and a request within the limits."""
    images, _, height, width = found["state"].shape[1:]
    scale = manifest.architecture.vae_scale
    size = (width * scale, height * scale)
    check_size(size, manifest.profiles.sizes, field="state")
    steps = len(found["timesteps"])
    work = Workload(width=size[0], height=size[1], images=images, steps=steps, controls=controls)
    check_limits(work, manifest.limits, steps_field="timesteps", images_field="state")
    prompts, chunks = found["token_ids"].shape[1:3]
    if prompts not in (1, 2) or (prompts == 2) not in manifest.profiles.guidance_modes:
        raise InvalidRequest(
            "token_ids", f"{prompts} prompts", allowed="2 with guidance, 1 without, as built"
        )
    most = manifest.profiles.text_chunks
    if not 1 <= chunks <= most:
        raise InvalidRequest("token_ids", f"{chunks} chunks", allowed=f"1 to {most}")
    return size


def _check_shapes(found: Tensors, manifest: BuildManifest) -> None:
    """The tensors' shapes agree with each other."""
    architecture = manifest.architecture
    steps = len(found["timesteps"])
    prompts, chunks = found["token_ids"].shape[1:3]
    state, coefficients = found["state"], found["coefficients"]
    images, _, height, width = state.shape[1:]
    latents = (images, architecture.latent_channels, height, width)
    draws = steps if len(found["noise"]) == steps else 1
    token_ids = (2, prompts, chunks, architecture.tokens)
    expected = {
        "token_ids": token_ids,
        "token_weights": token_ids,
        "time_ids": (prompts, architecture.time_ids),
        "input_scale": (steps,),
        "coefficients": (steps, *coefficients.shape[1:]),
        "noise": (draws, *latents),
        "state": (len(state), *latents),
    }
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise InvalidRequest(name, f"shape {list(found[name].shape)}", allowed=str(list(shape)))


def _check_values(found: Tensors) -> None:
    for name in _FINITE:
        if not np.isfinite(found[name]).all():
            raise InvalidRequest(name, "a value that is not finite", allowed="finite values")
    low, high = TOKEN_WEIGHTS
    weights = found["token_weights"]
    if not ((weights >= low) & (weights <= high)).all():
        raise InvalidRequest("token_weights", "a weight out of range", allowed=f"{low:g} to {high:g}")


def _check_prompts(request: Conditioning, manifest: BuildManifest) -> None:
    """A window has steps without guidance, which the build must have."""
    if False in manifest.profiles.guidance_modes:
        return
    if not all(map(request.guided, range(request.begin, request.end))):
        window = str(list(request.guidance_window))
        raise InvalidRequest("guidance_window", window, allowed="[0, 1]: built with guidance only")
