"""The weights that LoRAs may change, apart: what a running server computes every set from, and puts back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from intaglio.contract.config import Swap
from intaglio.engines.onnx_file import initializers
from intaglio.errors import BuildError
from intaglio.loras.files import layer_table
from intaglio_export.engines.compile import is_swapped

__all__ = ["write_pristine"]


def write_pristine(path: Path, wrapper: nn.Module, *, onnx: Sequence[Path], swap: Swap) -> int:
    """Write the swapped weights of `wrapper` (a network as it was exported to the graphs `onnx`) under their
    names; returns how many.

    A layer that no graph has is listed in the metadata as `unused`, one that `swap` leaves out as `frozen`.

    Raises:
        BuildError: the graphs have none of the weights that LoRAs change.
    """
    known = {name for graph in onnx for name in initializers(graph)}
    parameters = {name: values.detach() for name, values in wrapper.named_parameters()}
    layers = layer_table({"unet": {name: tuple(values.shape) for name, values in parameters.items()}})["unet"]
    tensors: dict[str, Tensor] = {}
    others: dict[str, dict[str, tuple[int, ...]]] = {"unused": {}, "frozen": {}}
    for layer, shape in layers.items():
        name = f"{layer}.weight"
        found = next((one for one in (name, f"{name}.T") if one in known), None)
        module = layer.partition(".")[2]
        if not is_swapped(name, len(shape), swap):
            others["frozen"][module] = shape
        elif found is None:
            others["unused"][module] = shape
        else:
            values = parameters[name]
            tensors[found] = _smallest(values.t() if found.endswith(".T") else values)
    if not tensors:
        raise BuildError(f"{onnx[0]}: has none of the weights that LoRAs change")
    save_file(
        tensors, path, metadata={kind: json.dumps(found, sort_keys=True) for kind, found in others.items()}
    )
    return len(tensors)


def _smallest(values: Tensor) -> Tensor:
    """In half precision where that is the same numbers, as with bases that are published so; half the memory
    of a server.
    """
    half = values.to(torch.float16)
    return (half if torch.equal(half.to(values.dtype), values) else values).contiguous()
