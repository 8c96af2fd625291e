"""Exported graphs equal the table, and LoRAs find their weights by name."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from intaglio.contract.architecture import SDXL_ARCHITECTURE
from intaglio.contract.sdxl import network_spec
from intaglio.engines.onnxruntime import OnnxRuntimeBackend
from intaglio_export.build import BuildResult
from intaglio_export.graphs.export import export_network
from intaglio_export.weights.seeded import Seeded, make_network
from intaglio_export.weights.swapped_weights import is_swapped


def test_onnx_equals_the_table(built: tuple[Path, BuildResult]) -> None:
    result = built[1]
    for name, network in result.manifest.networks.items():
        spec = network_spec(name, result.manifest.architecture)
        graph = onnx.load(result.folder / network.path).graph
        assert [item.name for item in graph.input] == [tensor.name for tensor in spec.inputs]
        assert [item.name for item in graph.output] == [tensor.name for tensor in spec.outputs]
        OnnxRuntimeBackend(threads=1).load(spec, result.folder / network.path, precision="fp32")


def weights_of(built: tuple[Path, BuildResult], network: str) -> list[onnx.TensorProto]:
    store = built[1].folder.parent / ".stages/onnx" / network
    return list(onnx.load(next(store.glob("*/model.onnx"))).graph.initializer)


@pytest.mark.parametrize("network", ["text_encoder", "text_encoder_2"])
def test_matrices_of_text_encoders_have_published_names(
    built: tuple[Path, BuildResult], network: str
) -> None:
    names = {tensor.name for tensor in weights_of(built, network)}
    assert "network.text_model.encoder.layers.0.self_attn.q_proj.weight.T" in names
    assert not [name for name in names if name.startswith("onnx::MatMul")]


def test_lora_targets_keep_their_names(built: tuple[Path, BuildResult]) -> None:
    """A refit replaces them by name in a running engine."""
    weights = weights_of(built, "unet")
    names = [tensor.name for tensor in weights if is_swapped(tensor.name, len(tensor.dims), "transformer")]
    assert len([name for name in names if name.endswith("to_q.weight.T")]) == 2 * 11
    assert not [tensor.name for tensor in weights if tensor.name.startswith("onnx::MatMul")]


@pytest.mark.parametrize("name", ["text_encoder", "text_encoder_2"])
def test_text_encoders_in_float16_have_one_type_throughout(tmp_path: Path, name: str) -> None:
    """An addition of float32 to float16 is traced without a word, and refused by every runtime."""
    network = make_network(name, Seeded("sdxl-reduced", 0), dtype=torch.float16)
    path = tmp_path / "model.onnx"
    export_network(network, name, path, architecture=SDXL_ARCHITECTURE, precision="fp16")
    onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, check_type=True)
