"""Where the weights of a deployment come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from intaglio.contract.architecture import SeededArchitecture
from intaglio.contract.lora_registry import LoraMethod, LoraWeight
from intaglio.contract.models import PaletteName
from intaglio.contract.sdxl import UNION_TYPES, controlnet_name, union_name
from intaglio.contract.yaml_files import RegistryId, Strict, resolved_path
from intaglio.validation_errors import Allowed

__all__ = [
    "UNION_MODES",
    "ControlNetSource",
    "LoraSource",
    "ServedControl",
    "Source",
    "UnionControl",
    "served_controls",
]

UNION_MODES: Final[Mapping[str, int]] = {
    "openpose": 0,
    "depth": 1,
    "hed": 2,
    "pidi": 2,
    "scribble": 2,
    "ted": 2,
    "canny": 3,
    "lineart": 3,
    "anime_lineart": 3,
    "mlsd": 3,
    "normal": 4,
    "segment": 5,
    "tile": 6,
}
"""Indices of the control types by the names of xinsir/controlnet-union-sdxl-1.0; `tile` is ProMax's. Its
last one, `repaint`, needs a picture with a hole, which no request brings.
"""


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


def _mode_by_name(value: Any) -> Any:
    return UNION_MODES.get(value, value) if isinstance(value, str) else value


ControlMode = Annotated[
    int,
    BeforeValidator(_mode_by_name),
    Field(strict=True, ge=0, lt=UNION_TYPES),
    Allowed(f"an index from 0 to {UNION_TYPES - 1}, or {', '.join(UNION_MODES)}"),
]


class UnionControl(Strict):
    """One of the control types that a ControlNet-Union serves. A bare value stands for `mode`."""

    mode: ControlMode
    """Index of the control type in the union (diffusers' `control_mode`), or its name in
    xinsir/controlnet-union-sdxl-1.0.
    """
    type: RegistryId | None = None
    """What its control image shows, where that is not the control's id."""
    palette: PaletteName | None = None
    """As the `palette` of a ControlNet of one type."""

    @model_validator(mode="before")
    @classmethod
    def _bare_mode(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else {"mode": value}


class ControlNetSource(Source):
    """A ControlNet of one `type`, or a ControlNet-Union with the controls that it serves."""

    type: RegistryId | None = None
    """What its control image shows, such as `pose`, `canny` or `depth`; requests may name it instead of the
    id. A `union` has none.
    """
    palette: PaletteName | None = None
    """The colours that a segmentation ControlNet has learnt. Maps in those of another palette are translated,
    and unknown colours are refused. Absent: maps are used as they are.
    """
    union: dict[RegistryId, UnionControl] = Field(default_factory=dict)
    """For a ControlNet-Union: the controls that it serves, by ids of your choice, by which requests name
    them.
    """

    @model_validator(mode="after")
    def _one_type_or_several(self) -> Self:
        if (self.type is None) != bool(self.union):
            raise ValueError("give either type (a ControlNet of one type) or union (the controls it serves)")
        if self.union and self.palette is not None:
            raise ValueError("palette belongs to one of the controls of `union`")
        if self.union and self.architecture is not None:
            raise ValueError("architecture draws a ControlNet of one type; give type instead of union")
        return self

    @property
    def component(self) -> str:
        """Which of diffusers' networks it is."""
        return "controlnet_union" if self.union else "controlnet"

    def network(self, own: str) -> str:
        """Name of its network; `own` is its id in `controlnets`."""
        return union_name(own) if self.union else controlnet_name(own)


class ServedControl(Strict):
    """A control that requests may name."""

    type: RegistryId
    """What its control image shows."""
    network: str
    """The network that computes it."""
    mode: int | None = None
    """Index of its type in a ControlNet-Union; None for a ControlNet of one type."""
    palette: PaletteName | None = None
    """The colours that it has learnt; None: maps are used as they are."""


def served_controls(sources: Mapping[str, ControlNetSource]) -> dict[str, ServedControl]:
    """What requests may name, by the control's id.

    Raises:
        ValueError: two of them have one id.
    """
    pairs = [pair for name, source in sources.items() for pair in _served_by(name, source)]
    found: dict[str, ServedControl] = {}
    for control, served in pairs:
        if control in found:
            owners = f"{found[control].network} and {served.network}"
            raise ValueError(f"controlnets: {owners} both serve a control {control!r}; rename one of them")
        found[control] = served
    return found


def _served_by(name: str, source: ControlNetSource) -> Iterable[tuple[str, ServedControl]]:
    network = source.network(name)
    if source.type is not None:
        yield name, ServedControl(type=source.type, network=network, palette=source.palette)
    for control, own in source.union.items():
        kind = own.type or control
        yield control, ServedControl(type=kind, network=network, mode=own.mode, palette=own.palette)


class LoraSource(Strict):
    """A LoRA file and its weight where `fuse` names none."""

    path: Path
    """The `.safetensors` file."""
    weight: LoraWeight = 1.0
    """Its weight where `fuse` names none."""
    method: LoraMethod | None = None
    """Few-step method that it was distilled with (docs/loras.md)."""

    _path = field_validator("path")(resolved_path)
