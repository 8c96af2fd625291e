"""One setting: inputs of `sdxl` that every scene is drawn with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from intaglio.contract.models import SDXL
from intaglio.contract.ports import Port, numpy_type
from intaglio_client.names import CONTROL_ALIASES, nearest

__all__ = ["Setting", "named_setting", "steps_of", "wrong_input"]

_STATED_IN_NAME: Final = ("scheduler", "steps")
_OF_SCENES: Final = (
    "prompt", "negative_prompt", "seed", "width", "height", "num_images", "output_format",
    "response_format", "images", "controls",
)  # fmt: skip
"""Inputs that say which picture is drawn. A scene states them, so a setting cannot."""


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
    """Share of the work, for the progress bar: the steps that it takes."""

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
        if name in CONTROL_ALIASES or name == "loras":
            continue
        if name not in ports:
            return f"unknown input {name}{nearest(name, [*ports, *CONTROL_ALIASES])}"
        if not _admitted(ports[name], value):
            return f"{name} {value!r} is not allowed; allowed: {ports[name].allowed}"
    return None


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
