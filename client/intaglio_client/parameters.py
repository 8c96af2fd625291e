"""What a caller may ask for, checked against the table before anything is sent, as the tensors of `sdxl`."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from intaglio.contract.models import CONTROL_KEYS, SDXL
from intaglio.contract.ports import Port, numpy_type
from intaglio.errors import InvalidRequest
from intaglio.request.request import ControlRequest, LoraRequest

__all__ = ["POSE", "Control", "Lora", "Parameters", "parameters_from_metadata", "tensors_from_parameters"]

POSE: Final = "pose"
"""Type of the control that `pose=...` stands for."""
_PNG_MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")
"""Of Pillow's modes those that its PNG writer takes."""
_LISTS: Final = ("images", "controls", "loras")
_LORA_KEYS: Final = tuple(LoraRequest.model_fields)

Scheduler = Literal["euler", "euler_a", "ddim", "dpmpp_2m_karras", "unipc", "lcm"]
OutputFormat = Literal["png", "jpeg", "webp"]
Encoded = bytes | Path | PIL.Image.Image
"""Where an image comes from: encoded bytes, a file, or a Pillow image (sent as PNG)."""


@dataclass(frozen=True, slots=True)
class Control:
    """One ControlNet at work: an image, or a pose of the server's library."""

    type: str
    """Id of a ControlNet or the type that one has: `pose`, `canny`, ..."""
    image: Encoded | None = None
    pose: str | None = None
    weight: float = 1.0
    begin: float = 0.0
    """Share of the steps after which it starts."""
    end: float = 1.0
    preprocess: Literal["none", "canny"] = "none"


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA or preset by registry id; `weight` None is the registry's."""

    id: str
    weight: float | None = None


class Parameters(TypedDict, total=False):
    """Keyword arguments of `Client.generate`; what is left out (or None) the server decides."""

    negative_prompt: str | None
    seed: int | None
    width: int | None
    height: int | None
    steps: int | None
    guidance_scale: float | None
    guidance_begin: float | None
    """Share of the steps before which guidance is off: faster, another image."""
    guidance_end: float | None
    scheduler: Scheduler | None
    num_images: int | None
    output_format: OutputFormat | None
    pose: str | None
    """Short for `controls=[Control("pose", pose=...)]`."""
    controls: Sequence[Control] | None
    loras: Sequence[Lora | tuple[str, float | None]] | None
    """The set to make the image with: LoRAs or presets, `Lora("night", 0.8)` or just `("night", 0.8)`."""
    trigger_words: bool | None
    """Whether trigger words of `loras` that the prompt lacks are put at its end."""


def tensors_from_parameters(prompt: str, parameters: Parameters) -> dict[str, NDArray[Any]]:
    """The inputs of `sdxl`; strings are object arrays of bytes.

    Raises:
        InvalidRequest: a value of the wrong type, out of the table's range or not one of its choices; an
            unknown parameter.
    """
    given: dict[str, Any] = {"prompt": prompt, **parameters}
    pose, controls, loras = (
        given.pop(POSE, None),
        tuple(given.pop("controls", None) or ()),
        tuple(given.pop("loras", None) or ()),
    )
    if pose is not None:
        controls = (Control(POSE, pose=pose), *controls)
    scalars = {port.name: port for port in SDXL.inputs if port.name not in _LISTS}
    if unknown := sorted(set(given) - set(scalars)):
        raise InvalidRequest(
            unknown[0], "unknown parameter", allowed=", ".join([*scalars, POSE, "controls", "loras"])
        )
    tensors = {name: _tensor(scalars[name], value) for name, value in given.items() if value is not None}
    if controls:
        images, entries = _control_entries(controls)
        if images:
            tensors["images"] = _strings(*images)
        tensors["controls"] = _strings(json.dumps(entries).encode())
    if loras:
        entries = [_lora_entry(index, lora) for index, lora in enumerate(loras)]
        tensors["loras"] = _strings(json.dumps(entries).encode())
    return tensors


def parameters_from_metadata(
    metadata: Mapping[str, Any], images: Sequence[bytes] = ()
) -> tuple[str, Parameters]:
    """Prompt and parameters that repeat the request of an image; `images` are the control images it was made
    with.

    Raises:
        InvalidRequest: a control image is missing, or `metadata` is not what a server writes.
    """
    by_digest = {hashlib.sha256(data).hexdigest(): data for data in images}
    try:
        digests = metadata["images"]
        if missing := [digest for digest in digests if digest not in by_digest]:
            raise InvalidRequest(
                "images",
                f"{len(missing)} control image(s) of the original are missing",
                allowed="the same files",
            )
        controls = [
            Control(
                **{
                    **entry,
                    "image": None if entry.get("image") is None else by_digest[digests[entry["image"]]],
                }
            )
            for entry in metadata["controls"]
        ]
        scalars = {
            port.name: metadata[port.name] for port in SDXL.inputs if port.name not in (*_LISTS, "prompt")
        }
        loras = [Lora(**entry) for entry in metadata["loras"]]
        return metadata["prompt"], Parameters(**scalars, controls=controls, loras=loras)  # type: ignore[typeddict-item]
    except (KeyError, TypeError, IndexError) as error:
        raise InvalidRequest(
            "metadata",
            f"not an intaglio image's: {error!r}",
            allowed="the metadata of an image a server made",
        ) from error


def _tensor(port: Port, value: Any) -> NDArray[Any]:
    if port.datatype == "TYPE_STRING":
        if not isinstance(value, str):
            raise InvalidRequest(port.name, f"{type(value).__name__}", allowed="a string")
        if port.choices and value not in port.choices:
            raise InvalidRequest(port.name, f"{value!r} is unknown", allowed=port.allowed)
        try:
            return _strings(value.encode())
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                port.name,
                f"character {error.start} has no UTF-8 form",
                allowed="text without lone surrogates",
            ) from error
    dtype = numpy_type(port.datatype)
    if dtype.kind == "b":
        if not isinstance(value, bool):
            raise InvalidRequest(port.name, f"{type(value).__name__}", allowed="True or False")
        return np.array([value], dtype)
    kinds = (int, np.integer) if dtype.kind == "i" else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise InvalidRequest(
            port.name,
            f"{type(value).__name__}",
            allowed=f"{'an integer' if dtype.kind == 'i' else 'a number'}, {port.allowed}",
        )
    low = -math.inf if port.minimum is None else port.minimum
    high = math.inf if port.maximum is None else port.maximum
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidRequest(port.name, f"{value} is out of range", allowed=port.allowed)
    return np.array([value], dtype)


def _control_entries(controls: Sequence[Control]) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Images, each once, and the JSON entries that refer to them."""
    images: list[bytes] = []
    entries = []
    for index, control in enumerate(controls):
        field = f"controls[{index}]"
        entry: dict[str, Any] = {key: getattr(control, key) for key in CONTROL_KEYS if key != "image"}
        if control.pose is None:
            entry.pop("pose")
        if (control.image is None) == (control.pose is None):
            raise InvalidRequest(field, "needs an image or a pose", allowed="exactly one of image and pose")
        if control.image is not None:
            data = _encoded(control.image, field=f"{field}.image")
            if data not in images:
                images.append(data)
            entry["image"] = images.index(data)
        entries.append(_checked(ControlRequest, entry, field=field))
    return images, entries


def _lora_entry(index: int, given: Lora | tuple[str, float | None]) -> dict[str, Any]:
    try:
        lora = given if isinstance(given, Lora) else Lora(*given)
    except TypeError as error:
        raise InvalidRequest(
            f"loras[{index}]", f"{given!r}", allowed="Lora(id, weight) or (id, weight)"
        ) from error
    entry = {"id": lora.id} if lora.weight is None else {"id": lora.id, "weight": lora.weight}
    return _checked(LoraRequest, entry, field=f"loras[{index}]")


def _checked(kind: type[BaseModel], entry: dict[str, Any], *, field: str) -> dict[str, Any]:
    try:
        kind.model_validate(entry)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        keys = CONTROL_KEYS if kind is ControlRequest else _LORA_KEYS
        where = ".".join([field, *map(str, first["loc"])])
        raise InvalidRequest(
            where, first["msg"], allowed=f"{', '.join(keys)} as the table of intaglio.request.request says"
        ) from error
    return entry


def _encoded(image: Encoded, *, field: str) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, PIL.Image.Image):
        buffer = io.BytesIO()
        (image if image.mode in _PNG_MODES else image.convert("RGB")).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise InvalidRequest(
            field, f"{image}: {error.strerror}", allowed="a file that can be read"
        ) from error


def _strings(*values: bytes) -> NDArray[Any]:
    tensor = np.empty(len(values), np.object_)
    tensor[:] = values
    return tensor
