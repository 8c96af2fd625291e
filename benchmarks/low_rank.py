"""LoRA beside every matrix instead of in it: x W + (x A) B, the UNet built so for one profile and timed.

    python -m benchmarks.low_rank CASE.json WORK_FOLDER
A and B are weights of the graph here: as inputs, which a swap would only have to upload, they cannot be faster.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import torch
import typer
from torch import Tensor, nn

from benchmarks.engines import time_passes
from benchmarks.lora_files import LoraCase, config_of
from benchmarks.results import write_part
from intaglio.config import load_deployment
from intaglio.engine import allocate_tensors
from intaglio_export.compile import ENGINE_FILES, CompileJob, compile_network, resolve_platform
from intaglio_export.graphs import example_inputs, export_network
from intaglio_export.plan import ONNX_FILE, Plan
from intaglio_export.stages import StageStore
from intaglio_export.verify import open_verification_backend

RANKS: Final = (0, 64, 128)
"""Of all LoRAs of a set together; 0 is the UNet as it is."""
_NETWORK: Final = "unet"


class Beside(nn.Module):
    """A linear layer with a low-rank path beside it."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear
        like: dict[str, Any] = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.down = nn.Parameter(0.02 * torch.randn(linear.in_features, rank, **like))
        self.up = nn.Parameter(0.02 * torch.randn(rank, linear.out_features, **like))
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        """[..., i] -> [..., o]."""
        made: Tensor = self.linear(x) + (x @ self.down) @ self.up
        return made


def put_beside(unet: nn.Module, rank: int) -> int:
    """Change every attention and feed-forward matrix of `unet`; how many."""
    found = [
        (parent, name, layer)
        for path, parent in unet.named_modules()
        if ".transformer_blocks." in f"{path}."
        for name, layer in parent.named_children()
        if isinstance(layer, nn.Linear)
    ]
    for parent, name, layer in found:
        setattr(parent, name, Beside(layer, min(rank, layer.in_features, layer.out_features)))
    return len(found)


def main(case: Path, work: Path) -> None:
    """Build and time each rank."""
    LoraCase.read(case)
    deployment = load_deployment(config_of(work, "fused")).model_copy(update={"fuse": {}})
    platform = resolve_platform(deployment)
    plan = Plan(deployment, platform, StageStore(deployment.build / ".stages"))
    profile, found = plan.profiles(_NETWORK)[0], dict[str, Any]()
    for rank in RANKS:
        folder = work / "low_rank" / str(rank)
        folder.mkdir(parents=True, exist_ok=True)
        network = plan.network(_NETWORK)
        matrices = put_beside(network, rank) if rank else 0
        export_network(network, _NETWORK, folder / ONNX_FILE, architecture=plan.architecture, precision=deployment.precision)
        plan._networks.clear()  # the next rank starts from the UNet as it is
        del network
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        started = time.perf_counter()
        job = CompileJob(
            onnx=folder / ONNX_FILE, network=plan.spec(_NETWORK), profiles=(profile,), precision=deployment.precision,
            timing_cache=folder / "timing.cache",
        )  # fmt: skip
        compile_network(job, folder, platform=platform)
        built = time.perf_counter() - started
        with open_verification_backend(platform, threads=deployment.execution.threads) as backend:
            engine = backend.load(job.network, folder / ENGINE_FILES[platform.runtime], precision=deployment.precision)
            sizes = {axis: size.optimum for axis, size in profile.axes.items()}
            arrays = allocate_tensors(backend, engine, sizes)
            for tensor, values in example_inputs(job.network, sizes, precision=deployment.precision, seed=1).items():
                backend.upload(arrays[tensor], values.numpy())
            taken = time_passes(backend, engine.bind(sizes, arrays))
            engine.close()
        found[str(rank)] = {"pass": taken, "matrices": matrices, "build_seconds": built}
        write_part(work, "low_rank", {"profile": profile.name, "runtime": platform.runtime, "ranks": found})
        for path in folder.iterdir():
            path.unlink()


if __name__ == "__main__":
    typer.run(main)
