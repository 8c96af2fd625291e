"""The files of a random checkpoint's LoRAs, and switches that swap them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from intaglio.loras.merge import LoraMerge
from intaglio.loras.targets import SWAPPED
from intaglio_export.weights.load import load_network
from intaglio_export.weights.sources import Weights
from intaglio_train.lora_files import Adapter, UnetLevels, kohya_tensors, write_adapter

from ...checkpoint import Checkpoint, make_checkpoint
from .merging import open_merge
from .world import LORAS, World, open_world

# Barriers of several threads on cores that are shared with other work cost ten times what they save at this
# size.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def write_locon(path: Path, checkpoint: Checkpoint) -> None:
    """Convolutions of a resnet and a downsampler beside attention, as LyCORIS trains them."""
    unet = load_network("unet", Weights(checkpoint.base / "unet"))
    torch.manual_seed(7)
    matrices: Any = {}
    for name, layer in unet.named_modules():
        if name.endswith((".conv1", "downsamplers.0.conv", ".conv_shortcut")):
            kernel = layer.kernel_size
            matrices["unet", name] = (
                0.1 * torch.randn(3, layer.in_channels, *kernel),
                0.1 * torch.randn(layer.out_channels, 3, 1, 1),
            )
        elif name.endswith("attn1.to_v"):
            matrices["unet", name] = (
                0.1 * torch.randn(3, layer.in_features),
                0.1 * torch.randn(layer.out_features, 3),
            )
    levels = UnetLevels(unet.config.layers_per_block, frozenset({0, 1}))
    write_adapter(path, kohya_tensors(Adapter(matrices, rank=3, alpha=1.5, levels=levels)), {})


def write_pristine_of(path: Path, component: str, network: Any, *, dtype: torch.dtype) -> None:
    """As a build does it: matrices of linear layers are transposed in the graph."""
    wrapper = "unet" if component == "unet" else "network"
    tensors = {}
    for name, values in network.named_parameters():
        if name.endswith(".weight") and values.ndim in (2, 4) and "embeddings." not in name:
            matrix = values.ndim == 2
            tensors[f"{wrapper}.{name}{'.T' if matrix else ''}"] = (
                (values.t() if matrix else values).detach().to(dtype).contiguous()
            )
    save_file(tensors, path)


@pytest.fixture(scope="session")
def files(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swap")
    write_locon(folder / "locon.safetensors", checkpoint)
    for name in LORAS[:3]:
        (folder / f"{name}.safetensors").write_bytes(checkpoint.lora(name).read_bytes())
    for component in SWAPPED:
        network = load_network(component, Weights(checkpoint.base / component))
        write_pristine_of(folder / f"{component}.pristine", component, network, dtype=torch.float32)
    return folder


@pytest.fixture(scope="session")
def merge(tmp_path_factory: pytest.TempPathFactory) -> LoraMerge:
    """Stages a few matrices at a time."""
    return open_merge(tmp_path_factory.mktemp("merge"), precision="fp32", staging_bytes=1 << 16)


@pytest.fixture(params=["host", "merge"])
def world(request: pytest.FixtureRequest, files: Path, tmp_path: Path, merge: LoraMerge) -> World:
    """New weights computed on the host, or where the engines are."""
    return open_world(files, tmp_path, merge=merge if request.param == "merge" else None)


@pytest.fixture(scope="module", params=["host", "merge"])
def shared_world(
    request: pytest.FixtureRequest, files: Path, tmp_path_factory: pytest.TempPathFactory, merge: LoraMerge
) -> World:
    return open_world(
        files, tmp_path_factory.mktemp("shared"), merge=merge if request.param == "merge" else None
    )
