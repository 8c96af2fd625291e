"""From a request's tensors to its checked values.

`read_request` trusts nothing: types, shapes, UTF-8, ranges, JSON, ids of registries, the total cost. Each
refusal is an `InvalidRequest` that names the field and what is allowed.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, replace
from typing import Any, Final

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import Limits
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.lora_tags import TaggedText, split_lora_tags
from intaglio.contract.models import SDXL
from intaglio.contract.ports import Tensors, read_tensors, scalar, shortest_float32
from intaglio.contract.presets import Presets
from intaglio.errors import InvalidRequest
from intaglio.loras.sets import ServedLoras
from intaglio.request.controls import check_controls, with_detectors
from intaglio.request.effects import windows_without_steps
from intaglio.request.limits import Workload, check_clip_skip, check_limits, check_size, check_window
from intaglio.request.loras import absent_trigger_words, asked_loras, check_fused, resolved_loras
from intaglio.request.methods import AskedMethod, asked_method
from intaglio.request.presets import AskedPresets, Source, asked_presets, completed
from intaglio.request.request import ControlRequest, LoraRequest, Request
from intaglio.request.texts import read_bytes, read_choice, read_json_list, read_text
from intaglio.sampling.solvers import model_calls, solver_table

__all__ = ["read_request"]

_GENERATOR_BITS: Final = 32
"""Bits of a seed that torch's CPU generator uses."""


def read_request(
    tensors: Tensors,
    manifest: BuildManifest,
    served: ServedLoras | None = None,
    presets: Presets | None = None,
) -> Request:
    """The checked request; what is absent comes from presets and from the deployment's defaults.

    `served` are the LoRAs that requests may choose; None where the build does not swap LoRAs. `presets` are
    those that requests may name; None: none.

    Raises:
        InvalidRequest: anything that the table, the limits or the build do not allow.
    """
    given = read_tensors(tensors, SDXL.inputs)
    _check_lengths(given, manifest.limits)
    asked = asked_presets(given, presets or Presets())
    words = _words(given, asked, manifest, served)
    method = asked_method(words.loras, served, manifest)
    found, origins = completed(
        given, _sources(asked, method, manifest), scheduler=manifest.defaults.scheduler
    )
    warnings = () if method is None else method.contradictions(found, origins)
    try:
        return _completed_request(found, asked, words, manifest, warnings)
    except InvalidRequest as error:
        if error.field not in origins:
            raise
        problem = f"{error.problem} (from {origins[error.field]})"
        raise InvalidRequest(error.field, problem, allowed=error.allowed) from error


@dataclass(frozen=True, slots=True)
class _Words:
    """What a request says in words, and the LoRAs that it names in them and in `loras`."""

    prompt: str
    negative_prompt: str | None
    loras: tuple[ResolvedLora, ...]
    trigger_words: bool
    added_words: tuple[str, ...]


def _words(
    found: Tensors, asked: AskedPresets, manifest: BuildManifest, served: ServedLoras | None
) -> _Words:
    most = manifest.limits.prompt_bytes
    prompt = _prompt(found, asked, most)
    tagged = split_lora_tags(prompt)
    loras = _loras(found, tagged, manifest, served)
    trigger_words = bool(_scalar(found, "trigger_words", True))
    added_words: tuple[str, ...] = ()
    if trigger_words and served is not None:
        added_words = absent_trigger_words(tagged.words, loras, served)
    return _Words(prompt, _negative_prompt(found, asked, most), loras, trigger_words, added_words)


def _sources(asked: AskedPresets, method: AskedMethod | None, manifest: BuildManifest) -> list[Source]:
    """Where values for absent inputs come from, the first one first."""
    sources: list[Source] = []
    if not asked.fills:
        return sources
    if asked.quality is not None:
        sources.append(asked.quality)
    if method is not None:
        sources.append(method.source)
    if manifest.defaults.preset is not None:
        sources.append(Source(f"defaults.preset {manifest.defaults.preset}", manifest.defaults.preset_values))
    return sources


def _completed_request(
    found: Tensors,
    asked: AskedPresets,
    words: _Words,
    manifest: BuildManifest,
    warnings: tuple[str, ...],
) -> Request:
    limits, defaults = manifest.limits, manifest.defaults
    _check_lengths(found, limits)
    first_width, first_height = manifest.profiles.sizes[0]
    seed = _scalar(found, "seed", None)
    images = _images(found, limits)
    request = Request(
        prompt=words.prompt,
        negative_prompt=words.negative_prompt,
        seed=secrets.randbits(_GENERATOR_BITS) if seed is None else seed,
        width=_scalar(found, "width", first_width),
        height=_scalar(found, "height", first_height),
        steps=_steps(found, defaults.steps),
        guidance_scale=_scalar(found, "guidance_scale", defaults.guidance_scale),
        guidance_rescale=_scalar(found, "guidance_rescale", 0.0),
        guidance_begin=_scalar(found, "guidance_begin", 0.0),
        guidance_end=_scalar(found, "guidance_end", 1.0),
        scheduler=_choice(found, "scheduler", defaults.scheduler),
        clip_skip=_scalar(found, "clip_skip", 0),
        schedule=read_choice(found, SDXL.input("schedule")) if "schedule" in found else None,
        timesteps=_floats(found, "timesteps"),
        sigmas=_floats(found, "sigmas"),
        sparse_begin=_scalar(found, "sparse_begin", None),
        sparse_every=_scalar(found, "sparse_every", None),
        eta=_scalar(found, "eta", None),
        num_images=_scalar(found, "num_images", 1),
        output_format=_choice(found, "output_format", "png"),
        response_format=_choice(found, "response_format", "bytes"),
        priority=_choice(found, "priority", "interactive"),
        queue_timeout=_scalar(found, "queue_timeout", None),
        images=images,
        image_digests=tuple(hashlib.sha256(data).hexdigest() for data in images),
        controls=_controls(found, manifest),
        control_every=_scalar(found, "control_every", 1),
        loras=words.loras,
        trigger_words=words.trigger_words,
        added_words=words.added_words,
        preset=_recorded_preset(asked, defaults.preset),
        style=asked.ids["style"],
        negative_preset=asked.ids["negative_preset"],
        scene=asked.ids["scene"],
        warnings=warnings,
    )
    _check(request, manifest)
    return replace(request, warnings=(*warnings, *windows_without_steps(request)))


def _check(request: Request, manifest: BuildManifest) -> None:
    """Check what depends on the build and on several inputs."""
    _check_size(request, manifest)
    check_clip_skip(request.clip_skip, most=manifest.architecture.most_clip_skip)
    _check_guidance(request, manifest.profiles.guidance_modes)
    calls = _model_calls(request, manifest.limits)
    work = Workload(
        width=request.width,
        height=request.height,
        images=request.num_images,
        steps=calls,
        controls=len(request.controls),
    )
    check_limits(work, manifest.limits, steps_field=_steps_field(request))
    check_controls(request, manifest.controlnets)
    # The scheduler config decides which steps exist, so only the table finds all that is wrong with them.
    solver_table(request.trajectory, scheduler_config=manifest.scheduler)


def _check_lengths(found: Tensors, limits: Limits) -> None:
    """Check how long the lists of a custom trajectory are, before any of their values costs time."""
    for name, ends in (("timesteps", 0), ("sigmas", 1)):
        least, most = 1 + ends, limits.steps + ends
        if name in found and not least <= len(found[name]) <= most:
            problem = f"{len(found[name])} values"
            raise InvalidRequest(name, problem, allowed=f"{least} to {most} values")


def _steps_field(request: Request) -> str:
    """The input that says how many steps there are."""
    if request.timesteps is not None:
        return "timesteps"
    return "steps" if request.sigmas is None else "sigmas"


def _recorded_preset(asked: AskedPresets, default: str | None) -> str | None:
    """The preset that the picture says. `none` is none, so that a repeated picture is the same file."""
    return asked.ids["preset"] or default if asked.fills else None


def _scalar(found: Tensors, name: str, default: Any) -> Any:
    """The value of the input `name`; a float has the fewest digits that name its float32."""
    value = scalar(found, SDXL.input(name), default)
    return shortest_float32(value) if isinstance(value, float) else value


def _floats(found: Tensors, name: str) -> tuple[float, ...] | None:
    """The values of the input `name`, each with the fewest digits that name its float32; None if absent."""
    return tuple(shortest_float32(value) for value in found[name]) if name in found else None


def _steps(found: Tensors, default: int) -> int:
    """The number of steps; custom timesteps or sigmas say it themselves."""
    if "steps" not in found and "timesteps" in found:
        return len(found["timesteps"])
    if "steps" not in found and "sigmas" in found:
        return len(found["sigmas"]) - 1
    steps: int = _scalar(found, "steps", default)
    return steps


def _model_calls(request: Request, limits: Limits) -> int:
    """How often the model is called; the table has a row for each call, and `diffuse` counts rows.

    Raises:
        InvalidRequest: too many, or a trajectory that has no meaning.
    """
    # First of all: a trajectory lists its steps.
    if not 1 <= request.steps <= limits.steps:
        allowed = f"1 to {limits.steps}"
        raise InvalidRequest("steps", f"{request.steps} is out of range", allowed=allowed)
    calls = model_calls(request.trajectory)
    if calls > limits.steps:
        problem = f"{request.steps} are {calls} model calls with {request.scheduler}"
        allowed = f"at most {limits.steps} model calls"
        raise InvalidRequest(_steps_field(request), problem, allowed=allowed)
    return calls


def _prompt(found: Tensors, asked: AskedPresets, most: int) -> str:
    """The caller's prompt in its scene and its style, with all LoRA tags."""
    if "prompt" not in found:
        raise InvalidRequest("prompt", "missing", allowed=SDXL.input("prompt").doc)
    own = read_text(found, "prompt", most=most)
    tagged = split_lora_tags(own)
    if not tagged.words.strip():
        beside = " beside its LoRAs" if tagged.tags else ""
        raise InvalidRequest("prompt", f"empty{beside}", allowed=f"1 to {most} bytes of UTF-8")
    return _within(asked.prompt(own), most, field="prompt")


def _negative_prompt(found: Tensors, asked: AskedPresets, most: int) -> str | None:
    """The caller's negative prompt and those of the presets."""
    own = None
    if "negative_prompt" in found:
        own = read_text(found, "negative_prompt", most=most)
        if tags := split_lora_tags(own, field="negative_prompt").tags:
            problem = f"<lora:{tags[0].id}> applies to the whole image"
            raise InvalidRequest("negative_prompt", problem, allowed="LoRAs in prompt, or in loras")
    text = asked.negative_prompt(own)
    return None if text is None else _within(text, most, field="negative_prompt")


def _within(text: str, most: int, *, field: str) -> str:
    """`text`, which presets may have made longer."""
    size = len(text.encode())
    if size > most:
        problem = f"{size} bytes with what its presets add"
        raise InvalidRequest(field, problem, allowed=f"at most {most} bytes")
    return text


def _choice(found: Tensors, name: str, default: str) -> str:
    return read_choice(found, SDXL.input(name)) if name in found else default


def _images(found: Tensors, limits: Limits) -> tuple[bytes, ...]:
    if "images" not in found:
        return ()
    count = len(found["images"])
    if count > limits.input_images:
        raise InvalidRequest("images", f"{count} images", allowed=f"at most {limits.input_images}")
    images = tuple(read_bytes(value, field=f"images[{index}]") for index, value in enumerate(found["images"]))
    for index, data in enumerate(images):
        if not 0 < len(data) <= limits.input_bytes:
            allowed = f"1 to {limits.input_bytes} bytes of PNG, JPEG or WEBP"
            raise InvalidRequest(f"images[{index}]", f"{len(data)} bytes", allowed=allowed)
    return images


def _controls(found: Tensors, manifest: BuildManifest) -> tuple[ControlRequest, ...]:
    entries = read_json_list(found, "controls", ControlRequest, most=manifest.limits.controls)
    detectors = {name: source.type for name, source in manifest.detectors.items()}
    return with_detectors(entries, manifest.controlnets, detectors)


def _loras(
    found: Tensors, tagged: TaggedText, manifest: BuildManifest, served: ServedLoras | None
) -> tuple[ResolvedLora, ...]:
    # The fused set may be larger than what a request may choose.
    most = max(manifest.limits.loras, len(manifest.loras))
    asked = asked_loras(tagged.tags, read_json_list(found, "loras", LoraRequest, most=most))
    if served is None:
        check_fused(asked, manifest.loras)
        return ()
    return resolved_loras(asked, served, most=manifest.limits.loras)


def _check_size(request: Request, manifest: BuildManifest) -> None:
    sizes, scale = manifest.profiles.sizes, manifest.architecture.vae_scale
    built = ", ".join(f"{width}x{height}" for width, height in sizes)
    for name, value in (("width", request.width), ("height", request.height)):
        if value % scale:
            problem = f"{value} is not a multiple of {scale}"
            raise InvalidRequest(name, problem, allowed=f"the built sizes {built}")
    name = "height" if any(width == request.width for width, _ in sizes) else "width"
    check_size((request.width, request.height), sizes, field=name)


def _check_guidance(request: Request, modes: tuple[bool, ...]) -> None:
    begin, end = request.guidance_begin, request.guidance_end
    if request.guidance not in modes:
        allowed = "above 1" if True in modes else "0 to 1 (built without guidance)"
        raise InvalidRequest("guidance_scale", f"{request.guidance_scale:g} is not built", allowed=allowed)
    check_window(begin, end, field="guidance_begin")
    if request.guidance and (begin, end) != (0, 1) and False not in modes:
        problem = "a window needs steps without guidance"
        raise InvalidRequest("guidance_begin", problem, allowed="absent: built with guidance only")
