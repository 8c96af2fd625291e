"""What the options of `intaglio generate` state of the picture, as parameters of the client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from intaglio_client.generate.files import DEFAULT_NAME
from intaglio_client.generate.option_texts import (
    control_from_text,
    format_of,
    lora_from_text,
    numbers_from_text,
    one_value,
)
from intaglio_client.parameters import Parameters

__all__ = ["parameters_from_options"]


def _for_controls(_name: str, values: list[float]) -> float | list[float]:
    """One number holds for all controls."""
    return values[0] if len(values) == 1 else values


_READERS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "steps": one_value,
    "guidance_scale": one_value,
    "scheduler": one_value,
    "num_images": one_value,
    "timesteps": numbers_from_text,
    "sigmas": numbers_from_text,
    "controlnet_conditioning_scale": _for_controls,
    "control_guidance_start": _for_controls,
    "control_guidance_end": _for_controls,
}
"""How an option is read that is not its value already."""


def parameters_from_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that `options` state; an option that is None or has no value states nothing.

    `options` are all options of the command by name. Those that are no parameters are left out.

    Raises:
        InvalidRequest: an option that cannot be read.
    """
    stated = {name: value for name, value in options.items() if value is not None and value != []}
    given: dict[str, Any] = {}
    for name, value in stated.items():
        if name in Parameters.__annotations__:
            read = _READERS.get(name)
            given[name] = value if read is None else read(name, value)
    if "control" in stated:
        given["controls"] = [control_from_text(text) for text in stated["control"]]
    if "lora" in stated:
        given["loras"] = [lora_from_text(text) for text in stated["lora"]]
    given["output_format"] = format_of(stated.get("out", Path(DEFAULT_NAME)))
    return given
