"""A request's tensors, read and checked against each other and against the build.

Axes: B images, R prompts ([negative; positive] or the positive one alone), k chunks, n steps of the whole
trajectory, c controls, K = 4 solver rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.models import DIFFUSE
from intaglio.contract.ports import Tensors, read_tensors, scalar
from intaglio.errors import InvalidRequest
from intaglio.loras.sets import set_from_json

__all__ = ["Conditioning", "ControlPlan", "active_controls", "active_places", "read_conditioning"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ControlPlan:
    """One control of a request: which ControlNet, its map, its weight, its part of the trajectory."""

    control: str
    map: NDArray[np.uint8]
    """[H, W, RGB]."""
    weight: float
    begin: float
    end: float

    def active(self, step: int, steps: int) -> bool:
        """Whether it takes part in `step` of `steps` (diffusers' `control_guidance_start` and `_end`)."""
        return self.weight != 0 and _inside((self.begin, self.end), step, steps)


@dataclass(frozen=True, slots=True)
class Conditioning:
    """A request's tensors, checked; shapes are those of `models.DIFFUSE`."""

    token_ids: NDArray[np.int64]
    token_weights: Floats
    zero_negative: bool
    time_ids: Floats
    guidance_scale: float
    timesteps: Floats
    input_scale: Floats
    coefficients: Floats
    noise: Floats
    state: Floats
    controls: tuple[ControlPlan, ...]
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

    def guided(self, step: int) -> bool:
        """Whether the negative prompt takes part in `step`."""
        return _inside(self.guidance_window, step, self.steps)

    @property
    def steps(self) -> int:
        """n, of the whole trajectory."""
        return len(self.timesteps)


def read_conditioning(tensors: Tensors, manifest: BuildManifest) -> Conditioning:
    """The inputs of `models.DIFFUSE`.

    Slices of a trajectory come from other processes, so nothing about them is assumed.

    Raises:
        InvalidRequest: tensors that do not fit each other or the build.
    """
    found = read_tensors(tensors, DIFFUSE.inputs)
    steps = len(found["timesteps"])
    begin = scalar(found, DIFFUSE.input("begin"), 0)
    end = scalar(found, DIFFUSE.input("end"), steps)
    if not 0 <= begin <= end <= steps:
        raise InvalidRequest("begin", f"slice {begin} to {end}", allowed=f"0 <= begin <= end <= {steps}")
    request = Conditioning(
        token_ids=found["token_ids"],
        token_weights=found["token_weights"],
        zero_negative=bool(found["zero_negative"][0]),
        time_ids=found["time_ids"],
        guidance_scale=float(found["guidance_scale"][0]),
        timesteps=found["timesteps"],
        input_scale=found["input_scale"],
        coefficients=found["coefficients"],
        noise=found["noise"],
        state=found["state"],
        controls=tuple(_control_plans(found, manifest)),
        guidance_window=_window(found),
        loras=_loras(found),
        begin=begin,
        end=end,
        timings=json.loads(found["timings"][0]) if "timings" in found else {},
    )
    size = _check_size(request, manifest)
    _check_prompts(request, manifest)
    _check_shapes(request, manifest)
    _check_maps(request, size)
    return request


def active_controls(plans: Sequence[ControlPlan], step: int, steps: int) -> list[int]:
    """Places of the controls that take part in `step`."""
    return [place for place, plan in enumerate(plans) if plan.active(step, steps)]


def active_places(request: Conditioning) -> list[int]:
    """Places of the controls that take part in any step of the slice."""
    places: set[int] = set()
    for step in range(request.begin, request.end):
        places.update(active_controls(request.controls, step, request.steps))
    return sorted(places)


def _inside(window: tuple[float, float], step: int, steps: int) -> bool:
    begin, end = window
    return step / steps >= begin and (step + 1) / steps <= end


# --- reading ---


def _control_plans(found: Tensors, manifest: BuildManifest) -> Iterator[ControlPlan]:
    entries: list[dict[str, Any]] = json.loads(found["controls"][0])
    maps = found["control_maps"]
    if entries and len(entries) != len(maps):
        raise InvalidRequest(
            "control_maps", f"{len(maps)} maps for {len(entries)} controls", allowed="one map a control"
        )
    for entry, pixels in zip(entries, maps, strict=False):
        control = entry["control"]
        if control not in manifest.controlnets:
            raise InvalidRequest(
                "controls", f"{control!r} is unknown", allowed=", ".join(manifest.controlnets)
            )
        yield ControlPlan(control, pixels, float(entry["weight"]), float(entry["begin"]), float(entry["end"]))


def _window(found: Tensors) -> tuple[float, float]:
    values = found.get("guidance_window", np.array([0, 1], np.float32))
    # The shortest decimal of a float32: 0.7 is meant, and 7 of 10 steps are inside it.
    begin, end = (float(str(value)) for value in values)
    return begin, end


def _loras(found: Tensors) -> tuple[ResolvedLora, ...]:
    try:
        return set_from_json(bytes(found["loras"][0]))
    except ValueError as error:
        raise InvalidRequest(
            "loras", "not a resolved set", allowed="what preprocess makes of a request's loras"
        ) from error


# --- checks ---


def _check_size(request: Conditioning, manifest: BuildManifest) -> tuple[int, int]:
    """(width, height) in pixels, which must be a built size."""
    height, width = request.state.shape[3:]
    scale = manifest.architecture.vae_scale
    size = (width * scale, height * scale)
    if size not in manifest.profiles.sizes:
        raise InvalidRequest(
            "state", f"{size[0]}x{size[1]} is not built", allowed=str(list(manifest.profiles.sizes))
        )
    return size


def _check_prompts(request: Conditioning, manifest: BuildManifest) -> None:
    """Number of prompts, guidance window and chunks are built."""
    modes = manifest.profiles.guidance_modes
    if request.prompts not in (1, 2) or request.guidance not in modes:
        raise InvalidRequest(
            "token_ids", f"{request.prompts} prompts", allowed="2 with guidance, 1 without, as built"
        )
    if False not in modes and not all(map(request.guided, range(request.begin, request.end))):
        raise InvalidRequest(
            "guidance_window",
            str(list(request.guidance_window)),
            allowed="[0, 1]: built with guidance only",
        )
    most = manifest.profiles.text_chunks
    if not 1 <= request.chunks <= most:
        raise InvalidRequest("token_ids", f"{request.chunks} chunks", allowed=f"1 to {most}")


def _check_shapes(request: Conditioning, manifest: BuildManifest) -> None:
    """The tensors' shapes agree with each other."""
    architecture = manifest.architecture
    steps = request.steps
    images, _, height, width = request.state.shape[1:]
    latents = (images, architecture.latent_channels, height, width)
    draws = steps if len(request.noise) == steps else 1
    expected = {
        "token_ids": (2, request.prompts, request.chunks, architecture.tokens),
        "token_weights": request.token_ids.shape,
        "time_ids": (request.prompts, architecture.time_ids),
        "input_scale": (steps,),
        "coefficients": (steps, *request.coefficients.shape[1:]),
        "noise": (draws, *latents),
        "state": (len(request.state), *latents),
    }
    for name, shape in expected.items():
        found = getattr(request, name).shape
        if found != shape:
            raise InvalidRequest(name, f"shape {list(found)}", allowed=str(list(shape)))


def _check_maps(request: Conditioning, size: tuple[int, int]) -> None:
    width, height = size
    if any(plan.map.shape != (height, width, 3) for plan in request.controls):
        raise InvalidRequest("control_maps", "wrong size", allowed=f"{width}x{height}")
