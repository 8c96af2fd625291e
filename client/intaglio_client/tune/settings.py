"""One setting: inputs of `sdxl` that every scene is drawn with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from intaglio.contract.models import SDXL
from intaglio.contract.presets import QUALITY_INPUTS, check_setting
from intaglio.errors import InvalidRequest
from intaglio.request.request import LoraRequest
from intaglio_client.names import CONTROL_ALIASES

__all__ = [
    "OF_CONTROLS",
    "Setting",
    "fixed_defaults",
    "named_setting",
    "stated_inputs",
    "steps_of",
    "wrong_input",
]

OF_CONTROLS: Final = ("control_every", *CONTROL_ALIASES)
"""Inputs that mean something only beside controls, and are refused without."""
_STATED_IN_NAME: Final = ("scheduler", "steps")
_LORAS: Final = "a list of {id: ID, weight: NUMBER}"


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
        """Whether it may become a preset: a preset changes how a picture is computed, and leaves to the user
        how strongly the prompt and the controls act.
        """
        computed = {name for name in QUALITY_INPUTS if not name.startswith("guidance")}
        return not self.apart and set(self.inputs) <= computed


def named_setting(inputs: Mapping[str, Any], *, name: str = "", apart: str = "") -> Setting:
    """A setting; without a `name` its inputs name it: `dpmpp_2m_karras 15, control_every 2`."""
    first = " ".join(str(inputs[key]) for key in _STATED_IN_NAME if key in inputs)
    others = [_shown(key, value) for key, value in inputs.items() if key not in _STATED_IN_NAME]
    shown = name or ", ".join([first, *others] if first else others)
    return Setting(shown, dict(inputs), apart, weight=steps_of(inputs))


def fixed_defaults() -> dict[str, Any]:
    """The inputs of quality whose default is a value, the same in every deployment."""
    defaults = {name: SDXL.input(name).default for name in QUALITY_INPUTS}
    return {name: default for name, default in defaults.items() if default is not None}


def stated_inputs(setting: Setting) -> dict[str, Any]:
    """The inputs of a request: those of the setting, and the fixed defaults of the others. A preset that is
    the deployment's default must not change what a setting is compared with.

    A LoRA's method says what a setting with LoRAs leaves out.
    """
    if "loras" in setting.inputs:
        return dict(setting.inputs)
    return {**fixed_defaults(), **setting.inputs}


def steps_of(inputs: Mapping[str, Any]) -> float:
    """The steps that `inputs` ask for; few where they leave them to a LoRA's method or to the server."""
    if "sigmas" in inputs:
        return float(len(inputs["sigmas"]) - 1)
    return float(len(inputs["timesteps"]) if "timesteps" in inputs else inputs.get("steps", 8))


def _shown(key: str, value: Any) -> str:
    if key == "loras":
        ids = [lora["id"] if isinstance(lora, Mapping) else str(lora) for lora in value]
        return f"lora {' '.join(ids)}"
    return f"{key} {value}"


def wrong_input(inputs: Mapping[str, Any]) -> str | None:
    """What is wrong with the first input that this version does not know or does not allow."""
    for name, value in inputs.items():
        try:
            _check_input(name, value)
        except (InvalidRequest, ValidationError) as error:
            return (
                str(error) if isinstance(error, InvalidRequest) else f"{name}: {value!r}; allowed: {_LORAS}"
            )
    return None


def _check_input(name: str, value: Any) -> None:
    if name == "loras":
        TypeAdapter(list[LoraRequest]).validate_python(value)
    elif name not in CONTROL_ALIASES:
        check_setting(name, value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(name, repr(value), allowed="a number, which holds for every control")
