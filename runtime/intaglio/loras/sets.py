"""Sets of LoRAs as values: what a request asks for, what a build serves, their digests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, Protocol, Self

from pydantic import Field, TypeAdapter, model_validator

from intaglio.builds.manifest import content_key
from intaglio.contract.lora_registry import Kind, LoraWeight, ResolvedLora, TriggerWord, check_presets
from intaglio.contract.methods import MethodName
from intaglio.contract.yaml_files import RegistryId, Sha256, Strict

__all__ = [
    "KEPT_VERSIONS",
    "ServedLora",
    "ServedLoras",
    "WeightedFile",
    "set_digest",
    "set_from_json",
    "set_text",
]

KEPT_VERSIONS: Final = 5
"""Versions of a LoRA that are kept, unless `intaglio watch --keep` says otherwise."""


class WeightedFile(Protocol):
    """A LoRA file, named by its content, and the weight it is applied with."""

    @property
    def sha256(self) -> str: ...
    @property
    def weight(self) -> float: ...


_SET: Final = TypeAdapter(tuple[ResolvedLora, ...])


def set_from_json(text: bytes) -> tuple[ResolvedLora, ...]:
    """The set that `preprocess` wrote; ValueError where `text` holds none."""
    return _SET.validate_json(text)


def set_digest(loras: Iterable[WeightedFile]) -> str:
    """Digest of a set: content and weight of every LoRA. Ids and order do not matter."""
    return content_key({"loras": sorted([lora.sha256, lora.weight] for lora in loras)})


def set_text(loras: Iterable[ResolvedLora]) -> str:
    """The set for people: `mara@1 + night@0.8`, or `no LoRA`."""
    return " + ".join(f"{lora.id}@{lora.weight:g}" for lora in loras) or "no LoRA"


class ServedLora(Strict):
    """One LoRA as it is served."""

    kind: Kind
    trigger_words: tuple[TriggerWord, ...] = ()
    weight: LoraWeight = 1.0
    bounds: tuple[LoraWeight, LoraWeight]
    method: MethodName | None = None
    """Few-step method that it was distilled with."""
    versions: tuple[Sha256, ...] = Field(min_length=1)
    """The versions that are kept, the current one last."""
    keep: int = Field(default=KEPT_VERSIONS, ge=1)
    """Most versions that are kept, the current one among them."""
    rejected: tuple[Sha256, ...] = ()
    """Versions that a rollback took back, the latest last. They are not served until somebody asks for one
    by name.
    """
    built: Sha256 | None = None
    """The registry's file at the last build; None where registry.json is older than this field."""

    @property
    def sha256(self) -> str:
        """The current version."""
        return self.versions[-1]


class ServedLoras(Strict):
    """registry.json: every LoRA and preset of a build that requests may choose."""

    schema_version: Literal[1] = 1
    loras: dict[RegistryId, ServedLora] = Field(default_factory=dict)
    presets: dict[RegistryId, dict[RegistryId, LoraWeight]] = Field(default_factory=dict)
    retired: dict[RegistryId, tuple[Sha256, ...]] = Field(default_factory=dict)
    """By LoRA, the versions that the last publication took out. Requests that were under way then may still
    need their files.
    """

    @model_validator(mode="after")
    def _presets_name_loras(self) -> Self:
        check_presets(self.presets, {lora: entry.bounds for lora, entry in self.loras.items()})
        return self
