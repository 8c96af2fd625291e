"""LoRAs as values: the registry of a user, `configs/loras.yaml`, and one LoRA of a set.

loras     id -> file or hub, kind, trigger words, default weight, bounds; `intaglio loras add` fills in the
          facts from `sha256` on
presets   id -> {lora id: weight}: a combination that a request names like a LoRA

The registry is strict and frozen. Paths are relative to the YAML file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final, Literal, Self, get_args

import yaml
from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from intaglio.contract.methods import METHODS, MethodName
from intaglio.contract.models import LARGEST_LORA_WEIGHT
from intaglio.contract.yaml_files import RegistryId, Sha256, Strict, read_yaml, validated
from intaglio.validation_errors import Allowed
from intaglio.whole_files import write_whole

__all__ = [
    "KINDS",
    "Kind",
    "LoraEntry",
    "LoraMethod",
    "LoraRegistry",
    "LoraWeight",
    "ResolvedLora",
    "TriggerWord",
    "check_presets",
    "load_registry",
    "write_registry",
]

Kind = Literal["character", "style", "background", "pose"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
LoraWeight = Annotated[float, Field(ge=-LARGEST_LORA_WEIGHT, le=LARGEST_LORA_WEIGHT, allow_inf_nan=False)]
TriggerWord = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]


def _has_loras(method: str) -> str:
    if METHODS[method].is_base:
        raise ValueError(f"{method} is published as a checkpoint only; set `method` of the deployment")
    return method


LoraMethod = Annotated[MethodName, AfterValidator(_has_loras)]
_HUB_FILE: Final = r"^[\w.-]+/[\w.-]+/[\w./-]+\.safetensors$"
_HUB_FILE_WORDS: Final = "owner/name/path.safetensors"


class ResolvedLora(Strict):
    """One LoRA of a set: which file, and how strongly it is applied."""

    id: RegistryId
    sha256: Sha256
    weight: LoraWeight


class LoraEntry(Strict):
    """One LoRA of the registry and what is known of its file."""

    file: Path | None = None
    hub: Annotated[str, StringConstraints(pattern=_HUB_FILE), Allowed(_HUB_FILE_WORDS)] | None = None
    kind: Kind
    trigger_words: tuple[TriggerWord, ...] = ()
    weight: LoraWeight = 1.0
    """The weight where a request names none."""
    bounds: tuple[LoraWeight, LoraWeight] = (0.0, 1.5)
    """Least and most weight a request may ask for."""
    method: LoraMethod | None = None
    """Few-step method that it was distilled with, whose settings a request gets that leaves them out."""
    checkpoints: Path | None = None
    """Folder that `intaglio watch` follows for newer files."""
    sha256: Sha256 | None = None
    size: int | None = None
    """Bytes."""
    format: str | None = None
    rank: tuple[int, ...] = ()
    """Every rank in the file."""
    targets: dict[str, int] = Field(default_factory=dict)
    """Layers changed by component."""

    @field_validator("file", "checkpoints")
    @classmethod
    def _resolved(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        folder = (info.context or {}).get("folder")
        if path is None or folder is None or path.is_absolute():
            return path
        # A link stays a link: `write_registry` writes the path back as the user gave it.
        return Path(os.path.normpath(Path(folder).resolve() / path))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.file is None) == (self.hub is None):
            raise ValueError("give exactly one of file, hub")
        if self.file is not None and self.file.suffix != ".safetensors":
            raise ValueError("file must be .safetensors (pickled files run code when loaded)")
        low, high = self.bounds
        if not low <= self.weight <= high:
            raise ValueError(f"weight {self.weight:g} is outside bounds {low:g} to {high:g}")
        return self


class LoraRegistry(Strict):
    """The whole file."""

    loras: dict[RegistryId, LoraEntry] = Field(default_factory=dict)
    presets: dict[RegistryId, dict[RegistryId, LoraWeight]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _presets_name_loras(self) -> Self:
        check_presets(self.presets, {lora: entry.bounds for lora, entry in self.loras.items()})
        return self


def check_presets(presets: dict[str, dict[str, float]], bounds: dict[str, tuple[float, float]]) -> None:
    """Raise ValueError unless every preset names known LoRAs at weights within their bounds."""
    for preset, members in presets.items():
        if preset in bounds:
            raise ValueError(f"preset {preset}: a LoRA has that id")
        if not members:
            raise ValueError(f"preset {preset}: names no LoRA")
        for lora, weight in members.items():
            if lora not in bounds:
                raise ValueError(f"preset {preset}: no LoRA {lora}; LoRAs: {', '.join(bounds)}")
            low, high = bounds[lora]
            if not low <= weight <= high:
                raise ValueError(
                    f"preset {preset}: {lora} at {weight:g} is outside its bounds {low:g} to {high:g}"
                )


def load_registry(path: Path) -> LoraRegistry:
    """Read and check `path`.

    Raises:
        ConfigError: a missing file, bad YAML, or a field that is unknown, missing or out of range.
    """
    return validated(LoraRegistry, read_yaml(path), path)


def write_registry(path: Path, registry: LoraRegistry) -> None:
    """Write `path` atomically; the comment lines at its top stay."""
    head = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            head.append(line)
    values = registry.model_dump(mode="json", exclude_defaults=True)
    for entry in values.get("loras", {}).values():
        for name in ("file", "checkpoints"):
            if name in entry:
                entry[name] = os.path.relpath(entry[name], path.parent.resolve())
    text = "\n".join([*head, yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)])
    write_whole(path, text.encode())
