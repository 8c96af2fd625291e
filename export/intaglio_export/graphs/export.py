"""Export a network as the ONNX graph that `intaglio.contract.tensors` describes.

Every graph is dynamic in every named axis. So ONNX Runtime runs any size from it, and TensorRT fixes the
sizes of each profile.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from torch import Tensor, nn

from intaglio.contract.architecture import Architecture
from intaglio.contract.sdxl import axis_sizes, network_spec
from intaglio.contract.tensors import NetworkSpec, Precision
from intaglio_export.graphs.examples import example_inputs
from intaglio_export.graphs.onnx_weights import LARGEST_PROTOBUF, attach_weights
from intaglio_export.graphs.sdxl import WholeNetwork, whole_gates, wrap_network

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
        if isinstance(wrapper, WholeNetwork):
            _export_with_optimum(wrapper, network, inputs, path)
        else:
            _export_traced(wrapper, network, inputs, path)


def _export_traced(
    wrapper: nn.Module, network: NetworkSpec, inputs: Mapping[str, Tensor], path: Path
) -> None:
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


def _export_with_optimum(
    wrapper: nn.Module, network: NetworkSpec, inputs: Mapping[str, Tensor], path: Path
) -> None:
    """Export with optimum under the table's names.

    optimum patches CLIP's attention mask, which the tracer cannot follow.
    """
    # optimum is slow to import, and only some networks need it.
    from optimum.exporters.onnx.convert import export_pytorch  # type: ignore[import-untyped]  # noqa: PLC0415
    from optimum.exporters.onnx.model_configs import (  # type: ignore[import-untyped]  # noqa: PLC0415
        CLIPTextOnnxConfig,
        VaeDecoderOnnxConfig,
    )

    axes = _dynamic_axes(network)
    parent: Any = CLIPTextOnnxConfig if "input_ids" in inputs else VaeDecoderOnnxConfig

    class TableConfig(parent):  # type: ignore[misc]
        """The table's tensors as optimum's configuration describes them."""

        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            return {spec.name: axes[spec.name] for spec in network.inputs}

        @property
        def outputs(self) -> dict[str, dict[int, str]]:
            return {spec.name: axes[spec.name] for spec in network.outputs}

        def generate_dummy_inputs(self, **_: Any) -> dict[str, Tensor]:
            return dict(inputs)

    config = TableConfig(wrapper.config, task="feature-extraction")
    export_pytorch(wrapper, config, opset=OPSET, output=path, device=str(next(wrapper.parameters()).device))
    _gather_weights(path, wrapper)


def _gather_weights(path: Path, wrapper: nn.Module) -> None:
    """Name the weights, and keep those of a large graph in one file beside it.

    Every other file that the exporter wrote is removed.
    """
    left = {item for item in path.parent.iterdir() if item != path}
    model = onnx.load(path)
    _name_weights(model, wrapper)
    weight_bytes = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    path.unlink()
    for item in left:
        item.unlink()
    onnx.save(
        model,
        path,
        save_as_external_data=weight_bytes > LARGEST_PROTOBUF,
        all_tensors_to_one_file=True,
        location=f"{path.name}.data",
        size_threshold=1024,
    )


def _name_weights(model: onnx.ModelProto, wrapper: nn.Module) -> None:
    """Give the matrices that optimum transposed and numbered the name of their parameter with `.T`.

    A running server finds the weights of LoRAs by these names.
    """
    names: dict[bytes, str] = {}
    for name, parameter in wrapper.named_parameters():
        if parameter.ndim == 2:
            values = parameter.detach().cpu().t().contiguous().numpy()
            names[_digest(values.tobytes())] = f"{name}.T"
    taken = {tensor.name for tensor in model.graph.initializer}
    renamed: dict[str, str] = {}
    for tensor in model.graph.initializer:
        if not tensor.name.startswith("onnx::"):
            continue
        found = names.get(_digest(tensor.raw_data))
        if found is not None and found not in taken:
            taken.add(found)
            renamed[tensor.name] = found
            tensor.name = found
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
