"""Where the weights of a deployment come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from intaglio.contract.architecture import SeededArchitecture
from intaglio.contract.lora_registry import LoraMethod, LoraWeight
from intaglio.contract.models import PaletteName
from intaglio.contract.yaml_files import RegistryId, Strict, resolved_path
from intaglio.validation_errors import Allowed

__all__ = ["ControlNetSource", "LoraSource", "Source"]


class Source(Strict):
    """Exactly one of a diffusers folder, a single .safetensors file, a hub id, or an architecture with
    weights that are drawn from a seed.
    """

    folder: Path | None = None
    """A folder in the layout of diffusers."""
    file: Path | None = None
    """A single `.safetensors` file in Stability's layout."""
    hub: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$"), Allowed("owner/name")] | None = None
    """A repository on the Hugging Face hub."""
    revision: str | None = None
    """Branch, tag or commit of the `hub` repository."""
    architecture: SeededArchitecture | None = None
    """Instead of real weights, to measure speed and memory: weights are drawn from `seed`; `sdxl-reduced` has
    the same blocks, but fewer and narrower ones.
    """
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Start of the random weights of `architecture`."""

    @field_validator("folder", "file")
    @classmethod
    def _resolved(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else resolved_path(path, info)

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        given = [self.folder, self.file, self.hub, self.architecture]
        if sum(value is not None for value in given) != 1:
            raise ValueError("give exactly one of folder, file, hub, architecture")
        if (self.seed is None) != (self.architecture is None):
            raise ValueError("architecture and seed go together")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision goes with hub only")
        if self.file is not None and self.file.suffix != ".safetensors":
            raise ValueError("file must be .safetensors (pickled checkpoints run code when loaded)")
        return self

    def __str__(self) -> str:
        if self.architecture is not None:
            return f"{self.architecture} with weights of seed {self.seed}"
        if self.hub is not None:
            revision = f"@{self.revision}" if self.revision else ""
            return f"hub:{self.hub}{revision}"
        return str(self.folder or self.file)


class ControlNetSource(Source):
    """A ControlNet and what its control image shows (`pose`, `canny`, `depth`, ...)."""

    type: RegistryId
    """What its control image shows, such as `pose`, `canny` or `depth`; requests may name it instead of the
    id.
    """
    palette: PaletteName | None = None
    """The colours that a segmentation ControlNet has learnt. Maps in those of another palette are translated,
    and unknown colours are refused. Absent: maps are used as they are.
    """


class LoraSource(Strict):
    """A LoRA file and its weight where `fuse` names none."""

    path: Path
    """The `.safetensors` file."""
    weight: LoraWeight = 1.0
    """Its weight where `fuse` names none."""
    method: LoraMethod | None = None
    """Few-step method that it was distilled with (docs/loras.md)."""

    _path = field_validator("path")(resolved_path)
