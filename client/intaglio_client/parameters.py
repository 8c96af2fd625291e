"""From what a caller asks for to the tensors of a public model; everything is checked before it is sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from intaglio.contract.lora_tags import split_lora_tags
from intaglio.contract.models import DELIVERY, SDXL, ModelSpec, OutputFormat, Priority
from intaglio.contract.port_values import tensor_from_value
from intaglio.contract.ports import string_tensor
from intaglio.contract.presets import KINDS, NO_PRESET
from intaglio.errors import InvalidRequest
from intaglio.request.request import CONTROL_KEYS, ControlRequest, LoraRequest
from intaglio.validation_errors import first_problem, nearest
from intaglio_client.controls import POSE, Control, encoded_image
from intaglio_client.names import (
    ALIASES,
    CONTROL_ALIASES,
    Aliases,
    own_names,
    with_control_aliases,
)

__all__ = ["Lora", "Parameters", "parameters_from_metadata", "tensors_from_parameters"]

_LISTS: Final = ("images", "controls", "loras")
_OURS: Final = "response_format"
"""The input that only other clients need."""


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA or preset by registry id; `weight` None is the registry's."""

    id: str
    weight: float | None = None


class Parameters(Aliases, total=False):
    """Keyword arguments of `Client.generate`; the server decides what is left out or None.

    Those of `Aliases` are other names of these.
    """

    negative_prompt: str | None
    seed: int | None
    """-1 is a random one, as None is; the result says which."""
    width: int | None
    height: int | None
    steps: int | None
    guidance_scale: float | None
    guidance_rescale: float | None
    """0 to 1: how far guidance is kept from raising the contrast (diffusers' `guidance_rescale`)."""
    guidance_begin: float | None
    """Share of the steps before which guidance is off, which is faster and changes the image."""
    guidance_end: float | None
    scheduler: str | None
    """An id, or another program's name (`intaglio.contract.schedulers`)."""
    clip_skip: int | None
    """Layers of the text encoders to skip for the prompt, as diffusers counts them for SDXL."""
    schedule: str | None
    """Where the steps lie: leading, trailing, linspace, karras, exponential, beta or ays."""
    timesteps: Sequence[float] | None
    """Whole training times of the steps, instead of `steps` and `schedule`."""
    sigmas: Sequence[float] | None
    """Noise levels of the steps and of the end, instead of `steps` and `schedule`."""
    sparse_begin: float | None
    """Share of the steps that are all taken before `sparse_every` counts."""
    sparse_every: int | None
    """After `sparse_begin`, 2 takes every second step, 3 every third."""
    eta: float | None
    """New noise in each step: eta of ddim, gamma of tcd."""
    num_images: int | None
    output_format: OutputFormat | None
    pose: str | None
    """Short for `controls=[Control("pose", pose=...)]`."""
    controls: Sequence[Control] | None
    control_every: int | None
    """2: the ControlNets run in every second step, which is faster and changes the image little."""
    loras: Sequence[Lora | tuple[str, float | None]] | None
    """LoRAs or presets to make the image with: `Lora("night", 0.8)`, or just `("night", 0.8)`."""
    trigger_words: bool | None
    """Whether trigger words of `loras` that the prompt lacks are added at its end."""
    preset: str | None
    """A quality preset of the server: values for what is left out here."""
    style: str | None
    """A style of the server: a template for the prompt, and what the negative prompt gets."""
    negative_preset: str | None
    """A negative prompt of the server; `negative_prompt` comes before it."""
    scene: str | None
    """A scene of the server: text that the prompt gets."""
    priority: Priority | None
    """`batch` lets interactive requests go first."""
    queue_timeout: float | None
    """Seconds that the request may wait for its turn; then DeadlineExceeded."""


def tensors_from_parameters(
    prompt: str, parameters: Mapping[str, Any], *, model: ModelSpec = SDXL
) -> dict[str, NDArray[Any]]:
    """The inputs of `model`, which is `sdxl` or `sdxl_stream`; strings are object arrays of bytes.

    `parameters` are those of `Parameters`, and inputs that only `model` has.

    Raises:
        InvalidRequest: a value of the wrong type, out of the table's range or not one of its choices; an
            unknown parameter.
    """
    given = own_names({"prompt": prompt, **parameters})
    pose = given.pop(POSE, None)
    controls = _controls(given.pop("controls", ()))
    loras = _items("loras", given.pop("loras", ()), allowed="a list of Lora(id, weight) or (id, weight)")
    if pose is not None:
        controls = (Control(POSE, pose=pose), *controls)
    controls = with_control_aliases(controls, given)
    for alias in CONTROL_ALIASES:
        given.pop(alias, None)
    _check_names(given, model)
    tensors = {name: tensor_from_value(model.input(name), value) for name, value in given.items()}
    if controls:
        images, entries = _control_entries(controls)
        if images:
            tensors["images"] = string_tensor(*images)
        tensors["controls"] = string_tensor(json.dumps(entries))
    if loras:
        entries = [_lora_entry(index, lora) for index, lora in enumerate(loras)]
        tensors["loras"] = string_tensor(json.dumps(entries))
    return tensors


def _items(name: str, given: Any, *, allowed: str) -> tuple[Any, ...]:
    """The items of a list; a text is none, although Python can take it apart."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InvalidRequest(name, f"{given!r}", allowed=allowed)
    return tuple(given)


def _controls(given: Any) -> tuple[Control, ...]:
    allowed = "a list of Control(type, ...)"
    controls = _items("controls", given, allowed=allowed)
    for index, control in enumerate(controls):
        if not isinstance(control, Control):
            raise InvalidRequest(f"controls[{index}]", f"{control!r}", allowed=allowed)
    return controls


def _check_names(given: Mapping[str, Any], model: ModelSpec) -> None:
    known = [port.name for port in model.inputs if port.name not in (*_LISTS, _OURS)]
    for name in given:
        if name == _OURS:
            raise InvalidRequest(name, "the client reads bytes", allowed="absent")
        if name not in known:
            names = [*known, POSE, "controls", "loras"]
            near = nearest(name, [*names, *ALIASES, *CONTROL_ALIASES])
            problem = f"unknown parameter{near}"
            raise InvalidRequest(name, problem, allowed=", ".join(names))


def parameters_from_metadata(
    metadata: Mapping[str, Any], images: Sequence[bytes] = ()
) -> tuple[str, Parameters]:
    """Prompt and parameters that repeat the request of an image; `images` are its control images.

    `loras` of the metadata are the resolved ones, so the prompt comes without its LoRA tags: their presets
    and default weights may mean something else today. Presets and styles are left out, since the metadata
    hold what they became. For the same reason the preset is `none`: no default preset and no method of a LoRA
    fills in what the metadata do not have.

    Raises:
        InvalidRequest: a control image is missing, or `metadata` is not what a server writes.
    """
    by_digest = {hashlib.sha256(data).hexdigest(): data for data in images}
    try:
        missing = [digest for digest in metadata["images"] if digest not in by_digest]
        if missing:
            problem = f"{len(missing)} control image(s) of the original are missing"
            raise InvalidRequest("images", problem, allowed="the same files")
        originals = [by_digest[digest] for digest in metadata["images"]]
        controls = [_control_from_entry(entry, originals) for entry in metadata["controls"]]
        left_out = (*_LISTS, *DELIVERY, *KINDS, "prompt")
        scalars = [port.name for port in SDXL.inputs if port.name not in left_out]
        # An older picture has no value of an input that was added later.
        values: dict[str, Any] = {name: metadata[name] for name in scalars if name in metadata}
        values |= {"controls": controls, "loras": [Lora(**entry) for entry in metadata["loras"]]}
        values["preset"] = NO_PRESET
        prompt = split_lora_tags(metadata["prompt"]).untagged
        return prompt, Parameters(**values)  # type: ignore[typeddict-item]
    except (KeyError, TypeError, IndexError) as error:
        problem = f"not an intaglio image's: {error!r}"
        allowed = "the metadata of an image a server made"
        raise InvalidRequest("metadata", problem, allowed=allowed) from error


def _control_from_entry(entry: Mapping[str, Any], images: Sequence[bytes]) -> Control:
    if not isinstance(entry, Mapping):
        raise TypeError(f"controls has the entry {entry!r}")
    index = entry.get("image")
    image = None if index is None else images[index]
    return Control(**{**entry, "image": image})


def _control_entries(controls: Sequence[Control]) -> tuple[list[bytes], list[dict[str, Any]]]:
    """The images of `controls`, each only once, and the JSON entries that refer to them."""
    images: list[bytes] = []
    entries = []
    for index, control in enumerate(controls):
        field = f"controls[{index}]"
        entry: dict[str, Any] = {key: getattr(control, key) for key in CONTROL_KEYS if key != "image"}
        entry = {key: value for key, value in entry.items() if value is not None}
        if (control.image is None) == (control.pose is None):
            raise InvalidRequest(field, "needs an image or a pose", allowed="exactly one of image and pose")
        if control.image is not None:
            data = encoded_image(control.image, field=f"{field}.image")
            if data not in images:
                images.append(data)
            entry["image"] = images.index(data)
        entries.append(_checked(ControlRequest, entry, field=field))
    return images, entries


def _lora_entry(index: int, given: Lora | tuple[str, float | None]) -> dict[str, Any]:
    field = f"loras[{index}]"
    if isinstance(given, Lora):
        lora = given
    elif isinstance(given, tuple | list) and len(given) in (1, 2):
        lora = Lora(*given)
    else:
        raise InvalidRequest(field, f"{given!r}", allowed="Lora(id, weight) or (id, weight)")
    entry: dict[str, Any] = {"id": lora.id}
    if lora.weight is not None:
        entry["weight"] = lora.weight
    return _checked(LoraRequest, entry, field=field)


def _checked(kind: type[BaseModel], entry: dict[str, Any], *, field: str) -> dict[str, Any]:
    try:
        kind.model_validate(entry)
    except ValidationError as error:
        first = first_problem(error, kind)
        where = f"{field}.{first.key}" if first.key else field
        allowed = first.allowed or ", ".join(kind.model_fields)
        raise InvalidRequest(where, first.wrong, allowed=allowed) from error
    return entry
