"""LoRAs beside every matrix instead of in it: the UNet is built as x W + (x A) B for one profile and timed.

    python -m benchmarks.loras.low_rank CASE.json WORK_FOLDER
A and B are weights of the graph here. As inputs a swap would only have to upload them, but a step could not
be faster.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
import typer
from torch import Tensor, nn

from benchmarks.loras.files import config_of
from benchmarks.measuring.results import write_part
from benchmarks.speed.graphs import Workbench
from intaglio.contract.config import load_deployment

__all__ = ["RANKS", "Beside", "put_beside"]

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


def main(case: Path, work: Path) -> None:
    """Build and time each rank."""
    deployment = load_deployment(config_of(work, "fused"))
    bench = Workbench(deployment.model_copy(update={"fuse": {}}))
    found: dict[str, Any] = {}
    for rank in RANKS:
        folder = work / "low_rank" / str(rank)
        network = bench.network()
        matrices = put_beside(network, rank) if rank else 0
        timed = bench.build_and_time(network, folder)
        del network
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        found[str(rank)] = {"pass": timed.passes, "matrices": matrices, "build_seconds": timed.build_seconds}
        values = {"profile": bench.profile.name, "runtime": bench.platform.runtime, "ranks": found}
        write_part(work, "low_rank", values)
        for path in folder.iterdir():
            path.unlink()


if __name__ == "__main__":
    typer.run(main)
