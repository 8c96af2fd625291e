"""Sets of LoRAs as values: what a request asks for, what a build serves, their digests."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    model_validator,
)

from intaglio.builds.manifest import content_key
from intaglio.contract.identifiers import RegistryId
from intaglio.contract.lora_registry import Kind, LoraWeight, TriggerWord, check_presets

__all__ = ["ResolvedLora", "ServedLora", "ServedLoras", "set_digest", "set_from_json", "set_text"]

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ResolvedLora(_Frozen):
    """One LoRA of a request's set: which file, how strongly."""

    id: RegistryId
    sha256: Digest
    weight: LoraWeight


_SET: Final = TypeAdapter(tuple[ResolvedLora, ...])


def set_from_json(text: bytes) -> tuple[ResolvedLora, ...]:
    """The set that `preprocess` resolved; ValueError where it is none."""
    return _SET.validate_json(text)


def set_digest(loras: tuple[ResolvedLora, ...]) -> str:
    """Digest of a set by content and weight; names and order do not matter."""
    return content_key({"loras": sorted([lora.sha256, lora.weight] for lora in loras)})


def set_text(loras: tuple[ResolvedLora, ...]) -> str:
    """The set for people: `mara@1 + night@0.8`, or `no LoRA`."""
    return " + ".join(f"{lora.id}@{lora.weight:g}" for lora in loras) or "no LoRA"


class ServedLora(_Frozen):
    """One LoRA as it is served."""

    kind: Kind
    trigger_words: tuple[TriggerWord, ...] = ()
    weight: LoraWeight = 1.0
    bounds: tuple[LoraWeight, LoraWeight]
    versions: tuple[Digest, ...] = Field(min_length=1)
    """Files, the current one last."""

    @property
    def sha256(self) -> str:
        """The current version."""
        return self.versions[-1]


class ServedLoras(_Frozen):
    """registry.json."""

    schema_version: Literal[1] = 1
    loras: dict[RegistryId, ServedLora] = Field(default_factory=dict)
    presets: dict[RegistryId, dict[RegistryId, LoraWeight]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _presets_name_loras(self) -> Self:
        check_presets(self.presets, {lora: entry.bounds for lora, entry in self.loras.items()})
        return self
