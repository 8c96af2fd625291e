"""Presets as values, `configs/presets.yaml`: what a request may name instead of stating it.

quality     id -> values of inputs of `sdxl` (every input whose port says `quality`), and `figures` for the
            reader, which `intaglio tune` measures
styles      id -> a template for the prompt, and what the negative prompt gets
negatives   id -> text that the negative prompt gets
scenes      id -> text that the prompt gets

A text for the prompt with `{prompt}` in it is a template: the prompt takes that place. Any other text
follows the prompt after a comma. A text for the negative prompt is no template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from intaglio.contract.lora_tags import split_lora_tags
from intaglio.contract.models import SDXL
from intaglio.contract.port_values import tensor_from_value
from intaglio.contract.yaml_files import RegistryId, Strict, read_yaml, validated
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.validation_errors import nearest

__all__ = [
    "KINDS",
    "NO_PRESET",
    "QUALITY_INPUTS",
    "Presets",
    "Quality",
    "Style",
    "check_guidance_window",
    "check_presets",
    "check_quality",
    "check_setting",
    "load_presets",
    "with_text",
]

_PLACE: Final = "{prompt}"
NO_PRESET: Final = "none"
"""Asked for as the quality preset: nothing is filled in but the deployment's own defaults."""
QUALITY_INPUTS: Final = tuple(port.name for port in SDXL.inputs if port.quality)
"""Inputs that a quality preset or a few-step method may set."""
KINDS: Final[Mapping[str, str]] = {
    "preset": "quality",
    "style": "styles",
    "negative_preset": "negatives",
    "scene": "scenes",
}
"""Input of `sdxl` -> the part of `Presets` that its ids are of."""


def _checked_tags(text: str) -> str:
    try:
        split_lora_tags(text)
    except InvalidRequest as error:
        raise ValueError(str(error)) from error
    return text


def _negative(text: str) -> str:
    """`text`, which neither applies a LoRA nor is a template."""
    if _PLACE in text:
        raise ValueError(f"{_PLACE} has no place in a negative prompt; write it into a style's prompt")
    if tags := split_lora_tags(text).tags:
        raise ValueError(f"<lora:{tags[0].id}> applies to the whole image; write it into a style's prompt")
    return text


_Text = Annotated[str, StringConstraints(min_length=1, max_length=2000), AfterValidator(_checked_tags)]
_NegativeText = Annotated[_Text, AfterValidator(_negative)]


class Quality(Strict):
    """One quality preset: values by the names of inputs."""

    model_config = ConfigDict(frozen=True, extra="allow")

    figures: dict[str, JsonValue] = Field(default_factory=dict)
    """What was measured with these values; only for the reader."""

    @property
    def values(self) -> dict[str, Any]:
        """The values by input."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _are_inputs(self) -> Self:
        for name, value in self.values.items():
            try:
                check_setting(name, value)
            except InvalidRequest as error:
                raise ValueError(str(error)) from error
        check_guidance_window(self.values)
        if not self.values:
            raise ValueError("sets nothing; name inputs, such as steps")
        return self


class Style(Strict):
    """One style."""

    prompt: _Text | None = None
    negative_prompt: _NegativeText | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.prompt is None and self.negative_prompt is None:
            raise ValueError("says nothing; give it prompt or negative_prompt")
        return self


class Presets(Strict):
    """The whole file."""

    quality: dict[RegistryId, Quality] = Field(default_factory=dict)
    styles: dict[RegistryId, Style] = Field(default_factory=dict)
    negatives: dict[RegistryId, _NegativeText] = Field(default_factory=dict)
    scenes: dict[RegistryId, _Text] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _no_preset_is_no_id(self) -> Self:
        if NO_PRESET in self.quality:
            raise ValueError(f"quality.{NO_PRESET}: means no preset in a request; choose another id")
        return self


def check_setting(name: str, value: Any) -> None:
    """Check the value of one input with the rules of a request that hold in every deployment.

    Raises:
        InvalidRequest: it is no input that a preset may set, or the input does not allow the value.
    """
    if name not in QUALITY_INPUTS:
        problem = f"no input that a quality preset may set{nearest(name, QUALITY_INPUTS)}"
        raise InvalidRequest(name, problem, allowed=", ".join(QUALITY_INPUTS))
    port = SDXL.input(name)
    tensor_from_value(port, value)
    if port.deployment_range and not port.admits(value):
        raise InvalidRequest(name, f"{value} is out of range", allowed=port.allowed)


def check_guidance_window(values: Mapping[str, Any]) -> None:
    """Raise ValueError where guidance would end before it begins."""
    begin, end = values.get("guidance_begin", 0.0), values.get("guidance_end", 1.0)
    if begin >= end:
        raise ValueError(f"guidance_begin: {begin:g} is not before guidance_end {end:g}")


def check_quality(
    place: str, values: Mapping[str, Any], *, most_steps: int, guidance_modes: Sequence[bool]
) -> None:
    """Check values of inputs against a deployment. `place` says in errors whose values they are.

    Raises:
        ValueError: more steps than limits.steps, or guidance that profiles.guidance leaves out.
    """
    steps, scale = values.get("steps"), values.get("guidance_scale")
    if steps is not None and steps > most_steps:
        raise ValueError(f"{place}.steps {steps} is above limits.steps {most_steps}")
    if scale is not None and (scale > 1) not in guidance_modes:
        raise ValueError(
            f"{place}.guidance_scale {scale:g} needs a guidance mode that profiles.guidance leaves out"
        )


def check_presets(path: Path, *, most_steps: int, guidance_modes: Sequence[bool]) -> None:
    """Check that every quality preset of `path` can be asked for in a deployment.

    Raises:
        ConfigError: what `load_presets` and `check_quality` refuse.
    """
    for preset, quality in load_presets(path).quality.items():
        place = f"quality.{preset}"
        try:
            check_quality(place, quality.values, most_steps=most_steps, guidance_modes=guidance_modes)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error


def load_presets(path: Path) -> Presets:
    """Read and check `path`.

    Raises:
        ConfigError: a missing file, bad YAML, or a key that is unknown or whose value is out of range.
    """
    return validated(Presets, read_yaml(path), path)


def with_text(prompt: str, text: str) -> str:
    """`prompt` in the place that the template `text` has for it, or `text` after it."""
    if _PLACE in text:
        return text.replace(_PLACE, prompt)  # braces in `prompt` stay as they are
    return f"{prompt}, {text}"
