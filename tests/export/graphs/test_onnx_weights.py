"""Graphs whose weights were attached one by one: in the file or beside it, the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from intaglio.contract.architecture import architecture_from_configs
from intaglio.contract.sdxl import axis_sizes, network_spec
from intaglio_export.graphs import export as graphs
from intaglio_export.graphs.examples import example_inputs
from intaglio_export.graphs.export import export_network
from intaglio_export.graphs.onnx_weights import attach_weights
from intaglio_export.graphs.sdxl import wrap_network
from intaglio_export.weights.seeded import ARCHITECTURES, Seeded, make_network

CONFIGS: Any = ARCHITECTURES["sdxl-reduced"]
ARCHITECTURE = architecture_from_configs(
    CONFIGS["unet"],
    text_encoder=CONFIGS["text_encoder"],
    text_encoder_2=CONFIGS["text_encoder_2"],
    vae=CONFIGS["vae"],
)


@pytest.mark.parametrize("beside", [False, True])
def test_a_controlnet_with_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, beside: bool
) -> None:
    name, path = "controlnet.pose", tmp_path / "model.onnx"
    if beside:
        monkeypatch.setattr(
            graphs, "attach_weights", lambda path, parameters: attach_weights(path, parameters, inline=0)
        )
    network = make_network(name, Seeded("sdxl-reduced", 0), dtype=torch.float32)
    export_network(network, name, path, architecture=ARCHITECTURE, precision="fp32")
    onnx.checker.check_model(str(path))
    assert (tmp_path / "model.onnx.data").exists() == beside
    assert not beside or path.stat().st_size < 2_000_000
    weights = {tensor.name for tensor in onnx.load(path, load_external_data=False).graph.initializer}
    assert "controlnet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight.T" in weights
    assert "controlnet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight" not in weights
    spec = network_spec(name, ARCHITECTURE)
    inputs = example_inputs(spec, axis_sizes(ARCHITECTURE, width=96, height=72), precision="fp32", seed=3)
    found = onnxruntime.InferenceSession(path).run(
        None, {key: value.numpy() for key, value in inputs.items()}
    )
    with torch.no_grad():
        expected = wrap_network(name, network)(*inputs.values())
    for ours, theirs in zip(found, expected, strict=True):
        assert np.allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_two_uses_under_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    node = onnx.helper.make_node
    axes = [onnx.numpy_helper.from_array(np.array([axis]), f"axis{axis}") for axis in (0, 1)]
    graph = onnx.helper.make_graph(
        [
            node("Unsqueeze", ["w", "axis0"], ["a"]), node("Unsqueeze", ["w", "axis1"], ["b"]),
            node("Mul", ["x", "a"], ["y"]), node("Mul", ["y", "b"], ["z"]),
        ],
        "toy",
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "w")],
        [onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [2, 2])],
        axes,
    )  # fmt: skip
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), path)
    with pytest.raises(ValueError, match=r"w\.expanded: used in two ways"):
        attach_weights(path, {"w": torch.ones(2)})
