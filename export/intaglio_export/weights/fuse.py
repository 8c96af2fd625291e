"""Fuse LoRAs into weights: always from the pristine base, in float32.

The reader and the formulas are those of a running server, so a fused set and a swapped set have the same
weights.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.errors import BuildError, LoraRefused
from intaglio.loras.adapters import lora_bytes
from intaglio.loras.files import LayerTable, LoraFile, layer_table, lora_file_from_bytes
from intaglio.loras.layers import merged
from intaglio.loras.targets import SWAPPED

__all__ = ["fuse_loras"]

log = logging.getLogger(__name__)


def fuse_loras(
    networks: Mapping[str, nn.Module],
    loras: Sequence[ResolvedLora],
    *,
    paths: Mapping[str, Path],
    dtype: str = "float32",
) -> frozenset[str]:
    """Apply `loras` to `networks` in place; returns the components that they changed.

    `networks` are all components that a LoRA may change, pristine and in float32. `paths` are the files by
    id. `dtype` is the numpy type that the weights will be stored in.

    Raises:
        BuildError: a file is no LoRA for this base, or the fused weights would have values that `dtype`
            cannot hold. `networks` are of no use after that.
    """
    table = layer_table({component: _shapes(networks[component]) for component in SWAPPED})
    # The order of a running server, because the last digit of a float32 sum depends on the order.
    files = [
        (lora, _read(lora.id, paths[lora.id], table)) for lora in sorted(loras, key=lambda lora: lora.id)
    ]
    places = sorted(set().union(*(file.layers for _, file in files)))
    # One layer at a time, so that one layer's float32 copies are all the memory that fusing takes.
    for place in places:
        component, name = place
        parameter = networks[component].get_parameter(f"{name}.weight")
        touching = [(lora, file.layers[place]) for lora, file in files if place in file.layers]
        terms = [(layer, lora.weight) for lora, layer in touching]
        values = merged(parameter.detach().cpu().float().numpy(), terms)
        if not np.abs(values).max() <= np.finfo(dtype).max:  # false for NaN too
            ids = ", ".join(lora.id for lora, _ in touching)
            raise BuildError(
                f"loras {ids}: {component}.{name} would have values that {dtype} cannot hold; use less weight"
            )
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(values))
    return frozenset(component for component, _ in places)


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(values.shape) for name, values in network.named_parameters()}


def _read(lora: str, path: Path, table: LayerTable) -> LoraFile:
    try:
        file = lora_file_from_bytes(lora, lora_bytes(lora, path), table=table)
    except LoraRefused as error:
        raise BuildError(str(error)) from error
    for warning in file.warnings:
        log.warning("lora %s: %s", lora, warning)
    return file
