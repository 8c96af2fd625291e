"""Export a network as the ONNX graph that `intaglio.contract.tensors` describes.

Every graph is dynamic in every named axis. So ONNX Runtime runs any size from it, and TensorRT fixes the
sizes of each profile.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from intaglio.contract.architecture import Architecture
from intaglio.contract.sdxl import axis_sizes, network_spec
from intaglio.contract.tensors import NetworkSpec, Precision
from intaglio_export.graphs.examples import example_inputs
from intaglio_export.graphs.onnx_weights import attach_weights
from intaglio_export.graphs.sdxl import whole_gates, wrap_network

__all__ = ["OPSET", "export_network"]

OPSET: Final = 18
_TRACED_LATENTS: Final = (10, 14)
"""(h, w) of the example.

Halving it twice rounds. So diffusers' upsamplers take their size from the skip tensor, as some sizes need.
"""
_TRACED_MATRIX: Final = {"i": 6, "o": 10, "r": 4}
"""Axes of the network that adds LoRAs to a matrix."""


def export_network(
    model: nn.Module, name: str, path: Path, *, architecture: Architecture, precision: Precision
) -> None:
    """Write the ONNX graph of `model` to `path`, with the inputs and outputs of the table's network `name`.

    `model` has its weights in `precision` already and may be on any device. Weights of 2 GiB and more go to
    `<path>.data` beside the graph.
    """
    network = network_spec(name, architecture)
    wrapper = wrap_network(name, model)
    h, w = _TRACED_LATENTS
    scale = architecture.vae_scale
    sizes = _TRACED_MATRIX | axis_sizes(architecture, width=w * scale, height=h * scale, images=2)
    device = next(model.parameters()).device
    examples = example_inputs(network, sizes, precision=precision)
    inputs = {tensor: values.to(device) for tensor, values in examples.items()}
    with warnings.catch_warnings(), torch.no_grad(), whole_gates():
        # Tracing warns of every Python comparison in diffusers; verification judges the result.
        warnings.simplefilter("ignore")
        _trace(wrapper, network, inputs, path)


def _trace(wrapper: nn.Module, network: NetworkSpec, inputs: Mapping[str, Tensor], path: Path) -> None:
    torch.onnx.export(
        wrapper,
        tuple(inputs[spec.name] for spec in network.inputs),
        str(path),
        input_names=[spec.name for spec in network.inputs],
        output_names=[spec.name for spec in network.outputs],
        dynamic_axes=_dynamic_axes(network),
        opset_version=OPSET,
        # `attach_weights` adds the weights one by one, since the tracer would hold SDXL's three times. The
        # tracer cannot fold constants without them, so that follows too.
        export_params=False,
        do_constant_folding=False,
        # The dynamo exporter specialises on the rounding of odd sizes. The tracer keeps it as arithmetic on
        # shapes.
        dynamo=False,
    )
    attach_weights(path, dict(wrapper.named_parameters()) | dict(wrapper.named_buffers()))


def _dynamic_axes(network: NetworkSpec) -> dict[str, dict[int, str]]:
    return {spec.name: spec.dynamic_axes for spec in network.tensors if spec.dynamic_axes}
