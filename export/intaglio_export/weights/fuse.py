"""Fuse LoRAs into weights: always from the pristine base, in float32, with the reader and the formulas of a
running server. A fused set and a swapped set have the same weights.
"""

# ruff: noqa: PLC0415  (torch is imported only when LoRAs are fused)

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import numpy as np

from intaglio.builds.manifest import FusedLora, content_key
from intaglio.errors import BuildError, LoraRefused
from intaglio.loras.adapters import lora_bytes, lora_files
from intaglio.loras.files import Component, LoraFile, layer_table, lora_file_from_bytes
from intaglio.loras.layer_names import component_of_key
from intaglio.loras.layers import merged
from intaglio.loras.tensor_files import map_tensor_file

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FUSABLE", "LoraChoice", "fuse_loras", "lora_components", "lora_digest", "lora_set_digest"]

log = logging.getLogger(__name__)

FUSABLE: Final = ("text_encoder", "text_encoder_2", "unet")
"""Components that a LoRA may change."""


@dataclass(frozen=True, slots=True)
class LoraChoice:
    """One LoRA of the set."""

    id: str
    path: Path
    weight: float
    sha256: str

    @property
    def record(self) -> FusedLora:
        """As the manifest keeps it."""
        return FusedLora(id=self.id, weight=self.weight, sha256=self.sha256)


def lora_set_digest(loras: Sequence[LoraChoice]) -> str:
    """Digest of what is fused: the content and weight of every LoRA. Names and order do not matter."""
    return content_key({"loras": sorted([lora.sha256, lora.weight] for lora in loras)})


def lora_digest(lora: str, path: Path) -> str | None:
    """Digest of a LoRA that more than one file makes up; None where the file at `path` is all of it.

    Raises:
        BuildError: a file cannot be read.
    """
    try:
        return hashlib.sha256(lora_bytes(lora, path)).hexdigest() if len(lora_files(path)) > 1 else None
    except LoraRefused as error:
        raise BuildError(str(error)) from error


def lora_components(lora: str, path: Path) -> frozenset[str]:
    """The components that the names of the file's tensors are for; known without the base.

    Raises:
        BuildError: it cannot be read, or it is no safetensors file.
    """
    try:
        return frozenset(component_of_key(key) for key in map_tensor_file(path).tensors)
    except (OSError, ValueError) as error:
        raise BuildError(f"lora {lora}: {path}: {error}") from error


def fuse_loras(
    networks: Mapping[str, nn.Module], loras: Sequence[LoraChoice], *, dtype: str = "float32"
) -> frozenset[str]:
    """Apply `loras` to `networks` (all of `FUSABLE`, pristine, in float32) in place; the components changed.

    One layer is computed at a time. `dtype` is the numpy type that the weights will be stored in.

    Raises:
        BuildError: a file is not a LoRA for this base, or makes weights that `dtype` cannot hold. `networks`
            are then of no use.
    """
    components: tuple[Component, ...] = get_args(Component)
    table = layer_table({name: _shapes(networks[name]) for name in components})
    # The same order as in a running server, since float32 sums depend on it in their last digit.
    files = [(lora, _read(lora, table)) for lora in sorted(loras, key=lambda lora: lora.id)]
    places = sorted({place for _, file in files for place in file.layers})
    for component, name in places:
        parameter = networks[component].get_parameter(f"{name}.weight")
        terms = [
            (file.layers[component, name], lora.weight)
            for lora, file in files
            if (component, name) in file.layers
        ]
        values = merged(parameter.detach().cpu().float().numpy(), terms)
        if not np.abs(values).max() <= np.finfo(dtype).max:  # NaN is not smaller either
            names = ", ".join(lora.id for lora, file in files if (component, name) in file.layers)
            raise BuildError(
                f"loras {names}: {component}.{name} would have values that {dtype} cannot hold;"
                " use less weight"
            )
        _assign(parameter, values)
    return frozenset(component for component, _ in places)


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(values.shape) for name, values in network.named_parameters()}


def _read(lora: LoraChoice, table: Mapping[Component, Mapping[str, tuple[int, ...]]]) -> LoraFile:
    try:
        file = lora_file_from_bytes(lora.id, lora_bytes(lora.id, lora.path), table=table)
    except LoraRefused as error:
        raise BuildError(str(error)) from error
    for warning in file.warnings:
        log.warning("lora %s: %s", lora.id, warning)
    return file


def _assign(parameter: nn.Parameter, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    import torch

    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))
