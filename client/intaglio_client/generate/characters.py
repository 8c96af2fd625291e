"""Character presets, `configs/characters.yaml`.

id -> prompt template, negative prompt, LoRAs, reference images, threshold. Paths are relative to the YAML
file. `intaglio characters` enrolls the reference images under the same id (docs/characters.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from intaglio.contract.identity import Threshold
from intaglio.contract.lora_registry import LoraWeight
from intaglio.contract.yaml_files import RegistryId, Strict, read_yaml, resolved_path, validated
from intaglio.errors import ConfigError
from intaglio.validation_errors import Allowed

__all__ = ["Character", "Characters", "load_character", "load_characters"]

_PLACE: Final = "{prompt}"


class Character(Strict):
    """One character."""

    prompt: Annotated[str, StringConstraints(pattern=r"\{prompt\}"), Allowed("text with {prompt} in it")]
    """Template; `{prompt}` is what the user asks for."""
    negative_prompt: str | None = None
    loras: dict[RegistryId, LoraWeight] = Field(default_factory=dict)
    """LoRAs or presets of the server's registry."""
    reference_images: tuple[Path, ...] = ()
    """What the character looks like; `intaglio characters enroll` takes them where it is given none."""
    threshold: Threshold | None = None
    """Least cosine or greatest Euclidean distance, as the deployment measures; `intaglio characters enroll`
    writes it to the character. Absent: the deployment's.
    """

    @field_validator("reference_images")
    @classmethod
    def _there(cls, paths: tuple[Path, ...], info: ValidationInfo) -> tuple[Path, ...]:
        found = tuple(resolved_path(path, info) for path in paths)
        if missing := [path for path in found if not path.is_file()]:
            raise ValueError(f"{missing[0]}: no such file")
        return found

    def prompt_of(self, prompt: str) -> str:
        """The template with `prompt` in its place; braces in `prompt` stay as they are."""
        return self.prompt.replace(_PLACE, prompt)


class Characters(Strict):
    """The whole file."""

    characters: dict[RegistryId, Character]


def load_characters(path: Path) -> dict[str, Character]:
    """Read and check `path`; ConfigError names what is wrong with it."""
    return dict(validated(Characters, read_yaml(path), path).characters)


def load_character(path: Path, name: str) -> Character:
    """The character `name` of the file at `path`; ConfigError where there is none."""
    found = load_characters(path)
    if name not in found:
        raise ConfigError(f"{path}: no character {name!r}; characters: {', '.join(found) or 'none'}")
    return found[name]
