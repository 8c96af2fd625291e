"""The files of a random checkpoint's LoRAs, and switches that swap them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from intaglio.loras.merge import LoraMerge
from intaglio.loras.targets import SWAPPED
from intaglio_export.weights.load import load_network
from intaglio_export.weights.sources import Weights

from ...checkpoint import Checkpoint, make_checkpoint, write_locon
from .merging import open_merge
from .world import LORAS, World, open_world, write_pristine_of

# Barriers of several threads on cores that are shared with other work cost ten times what they save at this
# size.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


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
