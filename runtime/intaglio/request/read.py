"""From a request's tensors to its checked values.

`read_request` trusts nothing: types, shapes, UTF-8, ranges, JSON, ids of registries, the total cost. Each
refusal is an `InvalidRequest` that names the field and what is allowed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import secrets
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import Limits
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.contract.models import SDXL
from intaglio.contract.ports import Tensors, read_tensors, scalar, shortest_float32
from intaglio.contract.yaml_files import Strict
from intaglio.errors import InvalidRequest
from intaglio.loras.sets import ServedLoras
from intaglio.request.controls import check_controls
from intaglio.request.loras import absent_trigger_words, check_fused, resolved_loras
from intaglio.request.request import ControlRequest, LoraRequest, Request

__all__ = ["read_request"]

_JSON_BYTES: Final = 64 * 1024
_LONGEST_CHOICE: Final = 64
"""Bytes of a choice that an error shows."""
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
    prompt = _text(found, "prompt", limits.prompt_bytes)
    if prompt is None:
        raise InvalidRequest("prompt", "missing", allowed=SDXL.input("prompt").doc)
    seed = _scalar(found, "seed", None)
    loras = _loras(found, manifest, served)
    images = _images(found, limits)
    trigger_words = bool(_scalar(found, "trigger_words", True))
    added_words: tuple[str, ...] = ()
    if trigger_words and served is not None:
        added_words = absent_trigger_words(prompt, loras, served)
    request = Request(
        prompt=prompt,
        negative_prompt=_text(found, "negative_prompt", limits.prompt_bytes),
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
        images=images,
        image_digests=tuple(hashlib.sha256(data).hexdigest() for data in images),
        controls=tuple(_json_list(found, "controls", ControlRequest)),
        loras=loras,
        trigger_words=trigger_words,
        added_words=added_words,
    )
    _check_size(request, manifest)
    _check_guidance(request, manifest.profiles.guidance_modes)
    _check_limits(request, limits)
    check_controls(request, manifest.controlnets)
    return request


def _scalar(found: Tensors, name: str, default: Any) -> Any:
    """The value of the input `name`; a float has the fewest digits that name its float32."""
    value = scalar(found, SDXL.input(name), default)
    return shortest_float32(value) if isinstance(value, float) else value


def _text(found: Tensors, name: str, most: int) -> str | None:
    if name not in found:
        return None
    data = _bytes(found[name].reshape(-1)[0])
    if len(data) > most:
        raise InvalidRequest(name, f"{len(data)} bytes", allowed=f"at most {most} bytes")
    text = _decoded(name, data)
    if name == "prompt" and not text.strip():
        raise InvalidRequest(name, "empty", allowed=f"1 to {most} bytes of UTF-8")
    return text


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(name, f"byte {error.start} is not UTF-8", allowed="UTF-8 text") from error


def _bytes(value: Any) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else bytes(value)


def _choice(found: Tensors, name: str, default: str) -> str:
    port = SDXL.input(name)
    if name not in found:
        return default
    text = _decoded(name, _bytes(found[name].reshape(-1)[0])[:_LONGEST_CHOICE])
    if text not in port.choices:
        raise InvalidRequest(name, f"{text!r} is unknown", allowed=port.allowed)
    return text


def _images(found: Tensors, limits: Limits) -> tuple[bytes, ...]:
    if "images" not in found:
        return ()
    count = len(found["images"])
    if count > limits.input_images:
        raise InvalidRequest("images", f"{count} images", allowed=f"at most {limits.input_images}")
    images = tuple(_bytes(value) for value in found["images"])
    for index, data in enumerate(images):
        if not 0 < len(data) <= limits.input_bytes:
            allowed = f"1 to {limits.input_bytes} bytes of PNG, JPEG or WEBP"
            raise InvalidRequest(f"images[{index}]", f"{len(data)} bytes", allowed=allowed)
    return images


def _loras(found: Tensors, manifest: BuildManifest, served: ServedLoras | None) -> tuple[ResolvedLora, ...]:
    asked = _json_list(found, "loras", LoraRequest)
    if served is None:
        check_fused(asked, manifest.loras)
        return ()
    return resolved_loras(asked, served, most=manifest.limits.loras)


_Entry = TypeVar("_Entry", bound=Strict)


@functools.cache  # to make one takes half a millisecond
def _list_of(entry: type[Strict]) -> TypeAdapter[Any]:
    return TypeAdapter(list[entry])  # type: ignore[valid-type]


def _json_list(found: Tensors, name: str, entry: type[_Entry]) -> list[_Entry]:
    """The entries in the input `name`, which is a JSON list; none where it is absent or empty."""
    if name not in found:
        return []
    data = _bytes(found[name].reshape(-1)[0])
    if len(data) > _JSON_BYTES:
        raise InvalidRequest(name, f"{len(data)} bytes", allowed=f"at most {_JSON_BYTES} bytes of JSON")
    text = _decoded(name, data)
    if not text.strip():
        return []
    allowed = f"a JSON list of objects with {', '.join(entry.model_fields)}"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(name, f"not JSON: {error}", allowed=allowed) from error
    try:
        entries: list[_Entry] = _list_of(entry).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidRequest(_field(name, first["loc"]), first["msg"], allowed=allowed) from error
    return entries


def _field(name: str, location: tuple[int | str, ...]) -> str:
    """`controls[0].type`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return name + "".join(parts)


def _check_size(request: Request, manifest: BuildManifest) -> None:
    sizes, scale = manifest.profiles.sizes, manifest.architecture.vae_scale
    built = ", ".join(f"{width}x{height}" for width, height in sizes)
    for name, value in (("width", request.width), ("height", request.height)):
        if value % scale:
            problem = f"{value} is not a multiple of {scale}"
            raise InvalidRequest(name, problem, allowed=f"the built sizes {built}")
    if (request.width, request.height) not in sizes:
        name = "height" if any(width == request.width for width, _ in sizes) else "width"
        raise InvalidRequest(name, f"{request.width}x{request.height} is not built", allowed=built)


def _check_guidance(request: Request, modes: tuple[bool, ...]) -> None:
    begin, end = request.guidance_begin, request.guidance_end
    if request.guidance not in modes:
        allowed = "above 1" if True in modes else "0 to 1 (built without guidance)"
        raise InvalidRequest("guidance_scale", f"{request.guidance_scale:g} is not built", allowed=allowed)
    if begin >= end:
        problem = f"{begin:g} is not before end {end:g}"
        raise InvalidRequest("guidance_begin", problem, allowed="0 to 1, less than end")
    if request.guidance and (begin, end) != (0, 1) and False not in modes:
        problem = "a window needs steps without guidance"
        raise InvalidRequest("guidance_begin", problem, allowed="absent: built with guidance only")


def _check_limits(request: Request, limits: Limits) -> None:
    for name, value, least, most in (
        ("steps", request.steps, 1, limits.steps),
        ("num_images", request.num_images, 1, limits.images),
        ("controls", len(request.controls), 0, limits.controls),
    ):
        if not least <= value <= most:
            raise InvalidRequest(name, f"{value} is out of range", allowed=f"{least} to {most}")
    per_step = request.width * request.height * request.num_images * (1 + len(request.controls))
    if per_step * request.steps > limits.cost:
        raise InvalidRequest(
            "steps",
            f"{request.steps} steps of {per_step} pixels "
            "(width x height x images x (1 + controls)) cost too much",
            allowed=f"1 to {limits.cost // per_step} with these, a product of {limits.cost}",
        )
