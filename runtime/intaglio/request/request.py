"""A request: checked tensors in, one frozen value out. Every rule about what a caller may ask for is here.

`read_request` trusts nothing: types, shapes, UTF-8, ranges, JSON, registry ids, total cost. Each refusal is
an `InvalidRequest` that names the field and what is allowed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from intaglio import __version__
from intaglio.builds.manifest import BuildManifest
from intaglio.contract.models import CONTROL_KEYS, LARGEST_LORA_WEIGHT, REGISTRY_ID, SDXL
from intaglio.contract.ports import Tensors, read_tensors, scalar
from intaglio.errors import InvalidRequest
from intaglio.loras.sets import ResolvedLora, ServedLoras

__all__ = [
    "ControlRequest",
    "LoraRequest",
    "Request",
    "absent_trigger_words",
    "read_request",
    "request_metadata",
]

_JSON_BYTES: Final = 64 * 1024
_GENERATOR_BITS: Final = 32
"""Bits of a seed that torch's CPU generator uses."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ControlRequest(_Strict):
    """One entry of `controls`: which control, from which image or pose, how strongly, when."""

    type: str = Field(pattern=REGISTRY_ID)
    """Id of a ControlNet, or the type that one of them has."""
    image: Annotated[int, Field(ge=0)] | None = None
    pose: Annotated[str, Field(pattern=REGISTRY_ID)] | None = None
    weight: float = Field(default=1.0, ge=0, le=2, allow_inf_nan=False)
    begin: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    end: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False)
    preprocess: Literal["none", "canny"] = "none"


class LoraRequest(_Strict):
    """One entry of `loras`."""

    id: str = Field(pattern=REGISTRY_ID)
    weight: float | None = Field(
        default=None, ge=-LARGEST_LORA_WEIGHT, le=LARGEST_LORA_WEIGHT, allow_inf_nan=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything a caller may set, defaults filled in."""

    prompt: str
    negative_prompt: str | None
    seed: int
    width: int
    height: int
    steps: int
    guidance_scale: float
    guidance_begin: float
    guidance_end: float
    scheduler: str
    num_images: int
    output_format: str
    images: tuple[bytes, ...]
    image_digests: tuple[str, ...]
    """sha256 of each."""
    controls: tuple[ControlRequest, ...]
    loras: tuple[ResolvedLora, ...]
    """To put on, presets taken apart, sorted by id; empty where the set is fused."""
    trigger_words: bool
    added_words: tuple[str, ...]
    """Trigger words that the prompt lacks."""

    @property
    def full_prompt(self) -> str:
        """The prompt as it is encoded."""
        return ", ".join((self.prompt, *self.added_words))

    @property
    def guidance(self) -> bool:
        """Whether the negative prompt takes part (diffusers: `guidance_scale > 1`)."""
        return self.guidance_scale > 1


def read_request(tensors: Tensors, manifest: BuildManifest, served: ServedLoras | None = None) -> Request:
    """The checked request with the deployment's defaults; `served` are the LoRAs where requests choose their
    own.

    Raises:
        InvalidRequest: anything that the table, the limits or the build do not allow.
    """
    found = read_tensors(tensors, SDXL.inputs)
    limits, defaults = manifest.limits, manifest.defaults
    first_width, first_height = manifest.profiles.sizes[0]
    prompt = _text(found, "prompt", limits.prompt_bytes)
    if prompt is None:
        raise InvalidRequest("prompt", "missing", allowed=SDXL.input("prompt").doc)
    seed = scalar(found, SDXL.input("seed"))
    loras = _resolved_loras(_json_list(found, "loras", LoraRequest), manifest, served)
    images = _images(found, manifest)
    trigger_words = bool(scalar(found, SDXL.input("trigger_words"), True))
    request = Request(
        prompt=prompt,
        negative_prompt=_text(found, "negative_prompt", limits.prompt_bytes),
        seed=secrets.randbits(_GENERATOR_BITS) if seed is None else seed,
        width=scalar(found, SDXL.input("width"), first_width),
        height=scalar(found, SDXL.input("height"), first_height),
        steps=scalar(found, SDXL.input("steps"), defaults.steps),
        guidance_scale=_shortest(scalar(found, SDXL.input("guidance_scale"), defaults.guidance_scale)),
        guidance_begin=_shortest(scalar(found, SDXL.input("guidance_begin"), 0.0)),
        guidance_end=_shortest(scalar(found, SDXL.input("guidance_end"), 1.0)),
        scheduler=_choice(found, "scheduler", defaults.scheduler),
        num_images=scalar(found, SDXL.input("num_images"), 1),
        output_format=_choice(found, "output_format", "png"),
        images=images,
        image_digests=tuple(hashlib.sha256(data).hexdigest() for data in images),
        controls=tuple(_json_list(found, "controls", ControlRequest)),
        loras=loras,
        trigger_words=trigger_words,
        added_words=absent_trigger_words(prompt, loras, served) if trigger_words and served else (),
    )
    _check_size(request, manifest)
    _check_limits(request, manifest)
    _check_controls(request, manifest)
    return request


def request_metadata(request: Request, manifest: BuildManifest) -> dict[str, Any]:
    """Every request parameter under its input's name, and what made the image. Input images are named by
    digest.
    """
    loras = [
        (lora.id, lora.weight, lora.sha256) for lora in manifest.loras
    ]  # a build has fused ones or swaps them
    loras += [(lora.id, lora.weight, lora.sha256) for lora in request.loras]
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "seed": request.seed,
        "width": request.width,
        "height": request.height,
        "steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "guidance_begin": request.guidance_begin,
        "guidance_end": request.guidance_end,
        "scheduler": request.scheduler,
        "num_images": request.num_images,
        "output_format": request.output_format,
        "images": list(request.image_digests),
        "controls": [control.model_dump(exclude_none=True) for control in request.controls],
        "loras": [{"id": lora, "weight": weight} for lora, weight, _ in loras],
        "trigger_words": request.trigger_words,
        "added_words": list(request.added_words),
        "model": {
            "base": manifest.base,
            "build": manifest.key,
            "precision": manifest.precision,
            "runtime": manifest.runtime,
            "loras": {lora: sha256 for lora, _, sha256 in loras},
        },
        "intaglio": __version__,
    }


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
    text = _decoded(name, _bytes(found[name].reshape(-1)[0])[:64])
    if text not in port.choices:
        raise InvalidRequest(name, f"{text!r} is unknown", allowed=port.allowed)
    return text


def _shortest(value: float) -> float:
    """The float with the fewest digits that is the same float32: 7.1, not 7.099999904632568."""
    return float(str(np.float32(value)))


def _images(found: Tensors, manifest: BuildManifest) -> tuple[bytes, ...]:
    if "images" not in found:
        return ()
    limits = manifest.limits
    count = len(found["images"])
    if count > limits.input_images:
        raise InvalidRequest("images", f"{count} images", allowed=f"at most {limits.input_images}")
    images = tuple(_bytes(value) for value in found["images"])
    for index, data in enumerate(images):
        if not 0 < len(data) <= limits.input_bytes:
            raise InvalidRequest(
                f"images[{index}]",
                f"{len(data)} bytes",
                allowed=f"1 to {limits.input_bytes} bytes of PNG, JPEG or WEBP",
            )
    return images


_Entry = TypeVar("_Entry", bound=_Strict)


@functools.cache
def _list_of(entry: type[_Strict]) -> TypeAdapter[Any]:
    return TypeAdapter(list[entry])  # type: ignore[valid-type]  # made once: it takes half a millisecond


def _json_list(found: Tensors, name: str, entry: type[_Entry]) -> list[_Entry]:
    if name not in found:
        return []
    data = _bytes(found[name].reshape(-1)[0])
    if len(data) > _JSON_BYTES:
        raise InvalidRequest(name, f"{len(data)} bytes", allowed=f"at most {_JSON_BYTES} bytes of JSON")
    text = _decoded(name, data)
    if not text.strip():
        return []
    keys = ", ".join(CONTROL_KEYS if entry is ControlRequest else LoraRequest.model_fields)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            name, f"not JSON: {error}", allowed=f"a JSON list of objects with {keys}"
        ) from error
    try:
        entries: list[_Entry] = _list_of(entry).validate_python(value)
        return entries
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = name + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise InvalidRequest(where, first["msg"], allowed=f"a JSON list of objects with {keys}") from error


def _check_size(request: Request, manifest: BuildManifest) -> None:
    built = ", ".join(f"{width}x{height}" for width, height in manifest.profiles.sizes)
    for name, value in (("width", request.width), ("height", request.height)):
        if value % manifest.architecture.vae_scale:
            raise InvalidRequest(
                name,
                f"{value} is not a multiple of {manifest.architecture.vae_scale}",
                allowed=f"the built sizes {built}",
            )
    if (request.width, request.height) not in manifest.profiles.sizes:
        name = "width" if request.width not in {width for width, _ in manifest.profiles.sizes} else "height"
        raise InvalidRequest(name, f"{request.width}x{request.height} is not built", allowed=built)
    if request.guidance not in manifest.profiles.guidance_modes:
        allowed = "above 1" if True in manifest.profiles.guidance_modes else "0 to 1 (built without guidance)"
        raise InvalidRequest("guidance_scale", f"{request.guidance_scale:g} is not built", allowed=allowed)
    if request.guidance_begin >= request.guidance_end:
        raise InvalidRequest(
            "guidance_begin",
            f"{request.guidance_begin:g} is not before end {request.guidance_end:g}",
            allowed="0 to 1, less than end",
        )
    if (
        request.guidance
        and (request.guidance_begin, request.guidance_end) != (0, 1)
        and False not in manifest.profiles.guidance_modes
    ):
        raise InvalidRequest(
            "guidance_begin",
            "a window needs steps without guidance",
            allowed="absent: built with guidance only",
        )


def _check_limits(request: Request, manifest: BuildManifest) -> None:
    limits = manifest.limits
    for name, value, most in (
        ("steps", request.steps, limits.steps),
        ("num_images", request.num_images, limits.images),
        ("controls", len(request.controls), limits.controls),
    ):
        if value > most:
            raise InvalidRequest(
                name, f"{value} is out of range", allowed=f"{0 if name == 'controls' else 1} to {most}"
            )
    per_step = request.width * request.height * request.num_images * (1 + len(request.controls))
    if per_step * request.steps > limits.cost:
        raise InvalidRequest(
            "steps",
            f"{request.steps} steps of {per_step} pixels (width x height x images x (1 + controls)) cost too much",
            allowed=f"1 to {limits.cost // per_step} with these, a product of {limits.cost}",
        )


def _check_controls(request: Request, manifest: BuildManifest) -> None:
    for index, control in enumerate(request.controls):
        field = f"controls[{index}]"
        if control.type not in {*manifest.controlnets, *manifest.controlnets.values()}:
            known = ", ".join(dict.fromkeys([*manifest.controlnets, *manifest.controlnets.values()]))
            raise InvalidRequest(
                f"{field}.type",
                f"{control.type!r} is unknown",
                allowed=known or "none: this deployment has no ControlNets",
            )
        if (control.image is None) == (control.pose is None):
            raise InvalidRequest(
                field,
                "needs an image or a pose",
                allowed="exactly one of image (index into images) and pose (id)",
            )
        if control.image is not None and control.image >= len(request.images):
            allowed = f"0 to {len(request.images) - 1}" if request.images else "no index: images is absent"
            raise InvalidRequest(f"{field}.image", f"{control.image} is out of range", allowed=allowed)
        if control.pose is not None and control.preprocess != "none":
            raise InvalidRequest(
                f"{field}.preprocess",
                f"{control.preprocess!r} with a pose",
                allowed="none: a pose is drawn as a map",
            )
        if control.begin >= control.end:
            raise InvalidRequest(
                f"{field}.begin",
                f"{control.begin:g} is not before end {control.end:g}",
                allowed="0 to 1, less than end",
            )
    used = {control.image for control in request.controls}
    if unused := [index for index in range(len(request.images)) if index not in used]:
        raise InvalidRequest(
            f"images[{unused[0]}]",
            "no control refers to it",
            allowed="images that controls refer to by index",
        )


def _resolved_loras(
    asked: list[LoraRequest], manifest: BuildManifest, served: ServedLoras | None
) -> tuple[ResolvedLora, ...]:
    if served is None:
        _check_fused(asked, manifest)
        return ()
    weights: dict[str, tuple[float, str]] = {}
    for index, entry in enumerate(asked):
        field = f"loras[{index}]"
        for lora, weight in _members(entry, served, field=field).items():
            if lora in weights:
                raise InvalidRequest(
                    f"{field}.id",
                    f"{lora!r} is asked for twice",
                    allowed="each LoRA once, presets taken apart",
                )
            weights[lora] = (_shortest(weight), field)
    for lora, (weight, field) in weights.items():
        low, high = served.loras[lora].bounds
        if not low <= weight <= high:
            raise InvalidRequest(
                f"{field}.weight",
                f"{lora} at {weight:g}",
                allowed=f"{low:g} to {high:g}, its bounds in the registry",
            )
    if len(weights) > manifest.limits.loras:
        raise InvalidRequest("loras", f"{len(weights)} LoRAs", allowed=f"at most {manifest.limits.loras}")
    # At weight 0 a LoRA changes nothing, and its file need not be touched.
    return tuple(
        ResolvedLora(id=lora, sha256=served.loras[lora].sha256, weight=weight)
        for lora, (weight, _) in sorted(weights.items())
        if weight
    )


def _members(entry: LoraRequest, served: ServedLoras, *, field: str) -> dict[str, float]:
    """LoRA -> weight of one entry: a preset's members are multiplied with the weight asked for."""
    if entry.id in served.loras:
        return {entry.id: served.loras[entry.id].weight if entry.weight is None else entry.weight}
    if entry.id in served.presets:
        factor = 1.0 if entry.weight is None else entry.weight
        return {lora: factor * weight for lora, weight in served.presets[entry.id].items()}
    known = ", ".join([*served.loras, *served.presets]) or "none (the registry is empty)"
    raise InvalidRequest(f"{field}.id", f"{entry.id!r} is unknown", allowed=known)


def absent_trigger_words(
    prompt: str, loras: tuple[ResolvedLora, ...], served: ServedLoras
) -> tuple[str, ...]:
    """Trigger words of `loras` that `prompt` does not have as whole words, in any case."""
    text = " ".join(prompt.lower().split())
    wanted = dict.fromkeys(word for lora in loras for word in served.loras[lora.id].trigger_words)
    return tuple(
        word
        for word in wanted
        if not re.search(rf"(?<!\w){re.escape(' '.join(word.lower().split()))}(?!\w)", text)
    )


def _check_fused(asked: list[LoraRequest], manifest: BuildManifest) -> None:
    """Without swapping the set is what was fused: an absent or empty list means that set."""
    fused = {lora.id: lora.weight for lora in manifest.loras}
    names = ", ".join(f"{name} at {weight:g}" for name, weight in fused.items()) or "none (no LoRA is fused)"
    for index, lora in enumerate(asked):
        if lora.id not in fused:
            raise InvalidRequest(
                f"loras[{index}].id", f"{lora.id!r} is unknown", allowed=f"absent, or the fused set: {names}"
            )
        if lora.weight is not None and not math.isclose(lora.weight, fused[lora.id], abs_tol=1e-6):
            raise InvalidRequest(
                f"loras[{index}].weight", f"{lora.weight:g}", allowed=f"absent, or as fused: {names}"
            )
    if asked and sorted(lora.id for lora in asked) != sorted(fused):
        raise InvalidRequest("loras", "not the fused set", allowed=f"absent, or all of it once: {names}")
