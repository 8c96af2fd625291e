"""The weights that LoRAs may change, apart from their network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from intaglio.errors import BuildError
from intaglio.loras.tensor_files import map_tensor_file
from intaglio_export.graphs.pristine import write_pristine


class Network(nn.Module):
    """A UNet's names at the smallest size."""

    def __init__(self) -> None:
        super().__init__()
        attentions = {name: nn.Linear(3, 2, bias=False) for name in ("to_q", "to_k", "unused")}
        block = nn.ModuleDict({"attentions": nn.ModuleDict(attentions)})
        self.unet = nn.ModuleDict({"mid": block, "conv": nn.Conv2d(1, 1, 3)})

    def weight(self, name: str) -> torch.Tensor:
        """The matrix of an attention's layer."""
        return self.get_parameter(f"unet.mid.attentions.{name}.weight").data


def write_graph(path: Path, *names: str) -> Path:
    tensors = [onnx.numpy_helper.from_array(np.zeros((2, 2), np.float32), name) for name in names]
    graph = onnx.helper.make_graph([], "toy", [], [], tensors)
    onnx.save(onnx.helper.make_model(graph), path)
    return path


def test_weights_have_the_names_of_the_graphs(tmp_path: Path) -> None:
    network = Network()
    half = network.weight("to_q").half().float()
    network.weight("to_q").copy_(half)
    network.weight("to_k").fill_(1 + 2**-20)
    first = write_graph(tmp_path / "a.onnx", "unet.mid.attentions.to_q.weight.T", "unet.conv.weight")
    second = write_graph(tmp_path / "b.onnx", "unet.mid.attentions.to_k.weight")
    path = tmp_path / "pristine.safetensors"
    assert write_pristine(path, network, onnx=[first, second], swap="transformer") == 2
    file = map_tensor_file(path)
    assert set(file.tensors) == {"unet.mid.attentions.to_q.weight.T", "unet.mid.attentions.to_k.weight"}
    assert file.tensors["unet.mid.attentions.to_q.weight.T"].dtype == "F16", (
        "the same numbers in half the memory"
    )
    assert file.tensors["unet.mid.attentions.to_k.weight"].dtype == "F32"
    np.testing.assert_array_equal(file.read("unet.mid.attentions.to_q.weight.T"), half.t().numpy())
    assert json.loads(file.metadata["unused"]) == {"mid.attentions.unused": [2, 3]}
    assert json.loads(file.metadata["frozen"]) == {"conv": [1, 1, 3, 3]}


def test_swap_all_covers_kernels(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "a.onnx", "unet.conv.weight")
    path = tmp_path / "pristine.safetensors"
    assert write_pristine(path, Network(), onnx=[graph], swap="all") == 1
    assert set(map_tensor_file(path).tensors) == {"unet.conv.weight"}


def test_graphs_without_such_weights_are_an_error(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "a.onnx", "onnx::MatMul_1")
    with pytest.raises(BuildError, match="none of the weights that LoRAs change"):
        write_pristine(tmp_path / "x", Network(), onnx=[graph], swap="all")
    assert not (tmp_path / "x").exists()


def test_values_are_those_of_the_network(tmp_path: Path) -> None:
    network = Network()
    graph = write_graph(tmp_path / "a.onnx", "unet.mid.attentions.to_k.weight.T")
    write_pristine(tmp_path / "p", network, onnx=[graph], swap="transformer")
    found = map_tensor_file(tmp_path / "p").read("unet.mid.attentions.to_k.weight.T")
    assert torch.equal(torch.from_numpy(found.copy()).t(), network.weight("to_k"))
