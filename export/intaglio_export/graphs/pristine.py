"""The weights that LoRAs may change, in a file of their own.

A running server computes every set of LoRAs from these pristine weights, and restores them.
"""

from __future__ import annotations

import itertools
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
from intaglio_export.graphs.swapped_weights import is_swapped

__all__ = ["write_pristine"]


def write_pristine(path: Path, wrapper: nn.Module, *, onnx: Sequence[Path], swap: Swap) -> int:
    """Write the swapped weights of `wrapper` under the names that the graphs `onnx` have for them.

    `wrapper` is the network as it was exported to these graphs. Layers that no graph has are listed in the
    file's metadata as `unused`, and layers that `swap` does not cover as `frozen`. Returns the number of
    weights.

    Raises:
        BuildError: the graphs have none of the weights that LoRAs change.
    """
    known = set(itertools.chain.from_iterable(initializers(graph) for graph in onnx))
    parameters = {name: values.detach() for name, values in wrapper.named_parameters()}
    shapes = {name: tuple(values.shape) for name, values in parameters.items()}
    layers = layer_table({"unet": shapes})["unet"]
    tensors: dict[str, Tensor] = {}
    unused: dict[str, tuple[int, ...]] = {}
    frozen: dict[str, tuple[int, ...]] = {}
    for layer, shape in layers.items():
        name = f"{layer}.weight"
        module = layer.partition(".")[2]
        if not is_swapped(name, len(shape), swap):
            frozen[module] = shape
        elif name in known:
            tensors[name] = _smallest(parameters[name])
        elif f"{name}.T" in known:
            tensors[f"{name}.T"] = _smallest(parameters[name].t())
        else:
            unused[module] = shape
    if not tensors:
        raise BuildError(f"{onnx[0]}: has none of the weights that LoRAs change")
    metadata = {
        "unused": json.dumps(unused, sort_keys=True),
        "frozen": json.dumps(frozen, sort_keys=True),
    }
    save_file(tensors, path, metadata=metadata)
    return len(tensors)


def _smallest(values: Tensor) -> Tensor:
    """`values` in float16 where no number changes, as with bases that are published in float16.

    This halves the memory that a server needs for them.
    """
    half = values.to(torch.float16)
    kept = half if torch.equal(half.to(values.dtype), values) else values
    return kept.contiguous()
