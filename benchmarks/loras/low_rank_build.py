"""The UNet with LoRAs beside every matrix, not in it, x W + (x A) B, built for each rank and one profile.

    python -m benchmarks.loras.low_rank_build CASE.json WORK_FOLDER
A and B are weights of the graph here. As inputs a swap would only have to upload them, but a step could not
be faster. The part `low_rank` times the engines that this one leaves in the work folder, 5 GB each, and
removes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
import typer
from torch import Tensor, nn

from benchmarks.loras.files import config_of
from benchmarks.measuring.results import read_part, write_part
from benchmarks.speed.graphs import Workbench
from intaglio.contract.config import load_deployment

__all__ = ["RANKS", "Beside", "folder_of", "put_beside", "workbench"]

RANKS: Final = (0, 64, 128)
"""Of all LoRAs of a set together; 0 is the UNet as it is."""


class Beside(nn.Module):
    """A linear layer with a low-rank path beside it."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear
        like: dict[str, Any] = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.down = nn.Parameter(0.02 * torch.randn(linear.in_features, rank, **like))
        self.up = nn.Parameter(0.02 * torch.randn(rank, linear.out_features, **like))
        self.in_features = linear.in_features
        self.out_features = linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        """[..., i] -> [..., o]."""
        made: Tensor = self.linear(x) + (x @ self.down) @ self.up
        return made


def put_beside(unet: nn.Module, rank: int) -> int:
    """Replace every attention and feed-forward matrix of `unet` by a `Beside`; how many there are."""
    found = []
    for path, parent in unet.named_modules():
        if ".transformer_blocks." not in f"{path}.":
            continue
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Linear):
                found.append((parent, name, layer))
    for parent, name, layer in found:
        setattr(parent, name, Beside(layer, min(rank, layer.in_features, layer.out_features)))
    return len(found)


def workbench(work: Path) -> Workbench:
    """For the UNet that `fused` has, with nothing fused."""
    deployment = load_deployment(config_of(work, "fused"))
    return Workbench(deployment.model_copy(update={"fuse": {}}))


def folder_of(work: Path, rank: str) -> Path:
    """Where the engine of a rank is."""
    return work / "low_rank" / rank


def main(case: Path, work: Path) -> None:
    """Build each rank that is not built yet."""
    bench = workbench(work)
    ranks: dict[str, Any] = (read_part(work, "low_rank_build") or {}).get("ranks", {})
    for rank in RANKS:
        folder = folder_of(work, str(rank))
        if str(rank) in ranks and folder.is_dir():
            continue
        network = bench.network()
        matrices = put_beside(network, rank) if rank else 0
        onnx = bench.export(network, folder)
        del network
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        seconds = bench.compile(onnx, bench.profile, folder=folder)
        bench.remove_graph(folder)
        ranks[str(rank)] = {"matrices": matrices, "build_seconds": seconds}
        write_part(work, "low_rank_build", {"profile": bench.profile.name, "ranks": ranks})


if __name__ == "__main__":
    typer.run(main)
