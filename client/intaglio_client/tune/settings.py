"""One setting: inputs of `sdxl` that every scene is drawn with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from intaglio.contract.models import SDXL
from intaglio.contract.ports import Port, numpy_type
from intaglio.request.request import LoraRequest
from intaglio_client.names import CONTROL_ALIASES, nearest

__all__ = ["Setting", "named_setting", "stated_inputs", "steps_of", "wrong_input"]

_STATED_IN_NAME: Final = ("scheduler", "steps")
_OF_SCENES: Final = (
    "prompt", "negative_prompt", "seed", "width", "height", "num_images", "output_format",
    "response_format", "images", "controls",
)  # fmt: skip
"""Inputs that say which picture is drawn. A scene states them, so a setting cannot."""
_KEPT: Final = (*_OF_SCENES, "trigger_words", "loras")


@dataclass(frozen=True)
class Setting:
    """What is tried: a name for the reader and the inputs that a request gets beside the scene's own."""

    name: str
    inputs: Mapping[str, Any]
    apart: str = ""
    """Why the setting draws another picture by nature. Such a setting is listed apart from the others, and no
    preset is chosen from it. Empty for the others.
    """
    weight: float = field(default=0.0, compare=False)
    """Steps that it takes, as far as they are known: how far it moves the progress bar."""

    @property
    def file_name(self) -> str:
        """The name as part of a file's name."""
        return re.sub(r"[^a-z0-9_.]+", "-", self.name.lower()).strip("-")

    @property
    def can_be_preset(self) -> bool:
        """Whether a preset may hold the setting: it states only inputs of `sdxl`, and no LoRAs."""
        known = {port.name for port in SDXL.inputs} - {"loras"}
        return not self.apart and set(self.inputs) <= known


def named_setting(inputs: Mapping[str, Any], *, name: str = "", apart: str = "") -> Setting:
    """A setting; without a `name` its inputs name it: `dpmpp_2m_karras 15, control_every 2`."""
    first = " ".join(str(inputs[key]) for key in _STATED_IN_NAME if key in inputs)
    others = [_shown(key, value) for key, value in inputs.items() if key not in _STATED_IN_NAME]
    shown = name or ", ".join([first, *others] if first else others)
    return Setting(shown, dict(inputs), apart, weight=steps_of(inputs))


def stated_inputs(setting: Setting) -> dict[str, Any]:
    """The inputs of a request: those of the setting, and every other with a fixed default, stated as that. A
    deployment may have defaults of its own, which must not change what a setting is compared with.

    A LoRA's method says what a setting with LoRAs leaves out.
    """
    if "loras" in setting.inputs:
        return dict(setting.inputs)
    defaults = {port.name: port.default for port in SDXL.inputs if port.name not in _KEPT}
    fixed = {name: default for name, default in defaults.items() if default is not None}
    return {**fixed, **setting.inputs}


def steps_of(inputs: Mapping[str, Any]) -> float:
    """The steps that `inputs` ask for; few where they leave them to a LoRA's method or to the server."""
    return float(inputs.get("steps", 8))


def _shown(key: str, value: Any) -> str:
    if key == "loras":
        ids = [lora["id"] if isinstance(lora, Mapping) else str(lora) for lora in value]
        return f"lora {' '.join(ids)}"
    return f"{key} {value}"


def wrong_input(inputs: Mapping[str, Any]) -> str | None:
    """What is wrong with the first input that this version does not know or does not allow."""
    ports = {port.name: port for port in SDXL.inputs}
    for name, value in inputs.items():
        if name in _OF_SCENES:
            return f"{name} belongs to a scene"
        if name in CONTROL_ALIASES:
            if isinstance(value, bool) or not isinstance(value, int | float):
                return f"{name} {value!r} is not allowed; allowed: a number, which holds for every control"
            continue
        if name == "loras":
            if not _are_loras(value):
                return f"loras {value!r} is not allowed; allowed: a list of {{id: ID, weight: NUMBER}}"
            continue
        if name not in ports:
            return f"unknown input {name}{nearest(name, [*ports, *CONTROL_ALIASES])}"
        if not _admitted(ports[name], value):
            return f"{name} {value!r} is not allowed; allowed: {ports[name].allowed}"
    return None


def _are_loras(value: Any) -> bool:
    try:
        TypeAdapter(list[LoraRequest]).validate_python(value)
    except ValidationError:
        return False
    return True


def _admitted(port: Port, value: Any) -> bool:
    if port.choices:
        return value in port.choices
    kind = numpy_type(port.datatype).kind
    if kind == "O":
        return isinstance(value, str)
    if kind == "b":
        return isinstance(value, bool)
    values = value if isinstance(value, list) else [value]
    if isinstance(value, list) and port.is_scalar:
        return False
    allowed = int if kind == "i" else (int, float)
    return all(isinstance(one, allowed) and not isinstance(one, bool) and port.admits(one) for one in values)
