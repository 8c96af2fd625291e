"""From a request's tensors to its checked values.

`read_request` trusts nothing: types, shapes, UTF-8, ranges, JSON, ids of registries, the total cost. Each
refusal is an `InvalidRequest` that names the field and what is allowed.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, Final

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import Limits
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.lora_tags import TaggedText, split_lora_tags
from intaglio.contract.models import SDXL
from intaglio.contract.ports import Tensors, read_tensors, scalar, shortest_float32
from intaglio.errors import InvalidRequest
from intaglio.loras.sets import ServedLoras
from intaglio.request.controls import check_controls
from intaglio.request.limits import Workload, check_limits, check_size, check_window
from intaglio.request.loras import absent_trigger_words, asked_loras, check_fused, resolved_loras
from intaglio.request.request import ControlRequest, LoraRequest, Request
from intaglio.request.texts import read_bytes, read_choice, read_json_list, read_text

__all__ = ["read_request"]

_GENERATOR_BITS: Final = 32
"""Bits of a seed that torch's CPU generator uses."""


def read_request(tensors: Tensors, manifest: BuildManifest, served: ServedLoras | None = None) -> Request:
    """The checked request, with the deployment's defaults for what is absent.

    `served` are the LoRAs that requests may choose; None where the build does not swap LoRAs.

    Raises:
        InvalidRequest: anything that the table, the limits or the build do not allow.
    """
    found = read_tensors(tensors, SDXL.inputs)
    limits, defaults = manifest.limits, manifest.defaults
    first_width, first_height = manifest.profiles.sizes[0]
    tagged = _prompt(found, limits.prompt_bytes)
    seed = _scalar(found, "seed", None)
    loras = _loras(found, tagged, manifest, served)
    images = _images(found, limits)
    trigger_words = bool(_scalar(found, "trigger_words", True))
    added_words: tuple[str, ...] = ()
    if trigger_words and served is not None:
        added_words = absent_trigger_words(tagged.words, loras, served)
    request = Request(
        prompt=read_text(found, "prompt", most=limits.prompt_bytes),
        negative_prompt=_negative_prompt(found, limits.prompt_bytes),
        seed=secrets.randbits(_GENERATOR_BITS) if seed is None else seed,
        width=_scalar(found, "width", first_width),
        height=_scalar(found, "height", first_height),
        steps=_scalar(found, "steps", defaults.steps),
        guidance_scale=_scalar(found, "guidance_scale", defaults.guidance_scale),
        guidance_begin=_scalar(found, "guidance_begin", 0.0),
        guidance_end=_scalar(found, "guidance_end", 1.0),
        scheduler=_choice(found, "scheduler", defaults.scheduler),
        num_images=_scalar(found, "num_images", 1),
        output_format=_choice(found, "output_format", "png"),
        response_format=_choice(found, "response_format", "bytes"),
        images=images,
        image_digests=tuple(hashlib.sha256(data).hexdigest() for data in images),
        controls=tuple(read_json_list(found, "controls", ControlRequest, most=limits.controls)),
        control_every=_scalar(found, "control_every", 1),
        loras=loras,
        trigger_words=trigger_words,
        added_words=added_words,
    )
    _check_size(request, manifest)
    _check_guidance(request, manifest.profiles.guidance_modes)
    work = Workload(
        width=request.width,
        height=request.height,
        images=request.num_images,
        steps=request.steps,
        controls=len(request.controls),
    )
    check_limits(work, limits)
    check_controls(request, manifest.controlnets)
    return request


def _scalar(found: Tensors, name: str, default: Any) -> Any:
    """The value of the input `name`; a float has the fewest digits that name its float32."""
    value = scalar(found, SDXL.input(name), default)
    return shortest_float32(value) if isinstance(value, float) else value


def _prompt(found: Tensors, most: int) -> TaggedText:
    if "prompt" not in found:
        raise InvalidRequest("prompt", "missing", allowed=SDXL.input("prompt").doc)
    tagged = split_lora_tags(read_text(found, "prompt", most=most))
    if not tagged.words.strip():
        beside = " beside its LoRAs" if tagged.tags else ""
        raise InvalidRequest("prompt", f"empty{beside}", allowed=f"1 to {most} bytes of UTF-8")
    return tagged


def _negative_prompt(found: Tensors, most: int) -> str | None:
    if "negative_prompt" not in found:
        return None
    text = read_text(found, "negative_prompt", most=most)
    if tags := split_lora_tags(text, field="negative_prompt").tags:
        problem = f"<lora:{tags[0].id}> applies to the whole image"
        raise InvalidRequest("negative_prompt", problem, allowed="LoRAs in prompt, or in loras")
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
