"""What changing LoRAs costs: `python -m benchmarks.lora_swap CONFIG --fused CONFIG --out benchmarks/results/NAME.json`.

    swap      seconds to put a set on: computing the weights, and the engines taking them
    refit     seconds of the bare refit of 1, 10 and all weights: its fixed cost, and what each weight adds
    step      seconds of a solver step, and its ratio to the same step of a build without swapping (--fused)
    load      swaps under load through Triton: failures, images, the longest wait
    retrain   seconds from a retrained file to its first image through the running server

Sets are two random LoRAs over all attention and feed-forward layers of the build (`--rank`): speed does not depend on values.
Build both deployments first. The weights that serve are computed from pristine ones each time, so the build is left as it was.
"""

from __future__ import annotations

import contextlib
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from safetensors.numpy import save

from intaglio.config import Deployment, load_deployment
from intaglio.errors import IntaglioError
from intaglio.lora_switch import SwapLayers, open_layers
from intaglio.manifest import BuildManifest, read_manifest, write_json
from intaglio.models import SDXL, numpy_type
from intaglio.served_loras import LORAS_FOLDER, LoraStore, ResolvedLora
from intaglio.serving.process import Endpoints
from intaglio.serving.server import Server
from intaglio.stages.diffuse import Diffuse
from intaglio.stages.preprocess import Preprocess
from intaglio_client import Client
from intaglio_client.watch import Publisher, Samples

PROMPT: Final = "a person dancing on a beach"
NOT_TRIED: Final = {
    "two_engines": "one engine a LoRA set, both resident: twice the weights do not fit 16 GB",
    "low_rank_inputs": "LoRA as engine inputs (x A B beside every matrix): not exported",
    "weights_computed_on_the_card": "numpy computes them on the host",
}
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    swaps: int
    steps: int
    load_seconds: float
    clients: int


def random_lora(layers: SwapLayers, *, rank: int, seed: int) -> bytes:
    """A LoRA in diffusers' layout over every attention and feed-forward matrix of the UNet that the build swaps."""
    rng = np.random.default_rng(seed)
    tensors = {}
    file = layers.pristine["unet"]
    for module, target in layers.targets["unet"].items():
        shape = file.tensors[target.initializer].shape
        if len(shape) == 2 and ".transformer_blocks." in module:
            outputs, inputs = shape[::-1] if target.transposed else shape
            used = min(rank, outputs, inputs)
            tensors[f"unet.{module}.lora_A.weight"] = (0.02 * rng.standard_normal((used, inputs), np.float32)).astype(np.float16)
            tensors[f"unet.{module}.lora_B.weight"] = (0.02 * rng.standard_normal((outputs, used), np.float32)).astype(np.float16)
    return save(tensors)


@contextlib.contextmanager
def random_sets(store: LoraStore, layers: SwapLayers, folder: Path, *, rank: int) -> Iterator[list[ResolvedLora]]:
    """Two random LoRAs in the build's store, taken out again."""
    made = []
    for seed in range(2):
        source = folder / f"random-{seed}.safetensors"
        source.write_bytes(random_lora(layers, rank=rank, seed=seed))
        digest, _ = store.put(f"random-{seed}", source)
        source.unlink()
        made.append(ResolvedLora(id=f"random-{seed}", sha256=digest, weight=1.0))
    try:
        yield made
    finally:
        for lora in made:
            store.path(lora.sha256).unlink(missing_ok=True)


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": round(statistics.median(seconds), 5), "min": round(min(seconds), 5), "max": round(max(seconds), 5), "n": len(seconds)}


def measure_swaps(diffuse: Diffuse, loras: list[ResolvedLora], *, count: int) -> dict[str, Any]:
    """Alternating sets, none between them or not; files are in memory after the first."""
    assert diffuse.loras is not None
    first, second = loras
    switch = diffuse.loras
    results: dict[str, Any] = {}
    started = time.perf_counter()
    switch.ensure((first, second))
    results["first_with_reading_the_files"] = round(time.perf_counter() - started, 5)
    for name, one, other in (("to_two", (first, second), ()), ("one_to_other", (first,), (second,)), ("to_none", (), (first, second))):
        whole, writing = [], []
        for _ in range(count):
            switch.ensure(other)
            whole.append(switch.ensure(one))
            writing.append(switch.counts.last_writing)
        results[name] = {"seconds": summary(whole), "writing": summary(writing)}
    switch.ensure(())
    return results


def measure_refit(diffuse: Diffuse, layers: SwapLayers, *, count: int) -> dict[str, Any]:
    """The bare refit of pristine values into the UNet."""
    engine, file = diffuse._engines["unet"], layers.pristine["unet"]
    dtype = "float16" if engine.precision == "fp16" else "float32"
    values = {name: np.ascontiguousarray(file.read(name).astype(dtype)) for name in file.tensors}
    results = {}
    for number in sorted({1, min(10, len(values)), len(values)}):
        some = dict(list(values.items())[:number])
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            engine.refit(some)
            seconds.append(time.perf_counter() - started)
        results[str(number)] = {"bytes": sum(one.nbytes for one in some.values()), "seconds": summary(seconds)}
    return results


def measure_step(deployment: Deployment, manifest: BuildManifest, *, steps: int, diffuse: Diffuse) -> dict[str, float]:
    """Seconds of a step with guidance at the first built size, from runs of two lengths: what is done once cancels out."""
    seconds = []
    with Preprocess(manifest, deployment.build_folder) as preprocess:
        for _ in range(3):
            laps = []
            for count in (1, 1 + steps):
                values: dict[str, Any] = {"prompt": PROMPT, "seed": 0, "steps": count}
                tensors = {}
                for name, value in values.items():
                    tensors[name] = np.empty(1, numpy_type(SDXL.input(name).datatype))
                    tensors[name][:] = value.encode() if isinstance(value, str) else value
                arrays = {k: v for k, v in preprocess(tensors).items() if k not in ("metadata", "output_format")}
                laps.append(json.loads(diffuse(arrays, wanted=("state", "timings"))["timings"][0])["denoise"])
            seconds.append((laps[1] - laps[0]) / steps)
    return summary(seconds)


def measure_load(server: Server, sizes: Sizes) -> dict[str, Any]:
    """Clients that each ask for another published set every time."""
    store = LoraStore(server.deployment.build_folder / LORAS_FOLDER)
    loras = list(store.current().loras)
    until = time.monotonic() + sizes.load_seconds

    def ask(number: int) -> tuple[list[float], list[str], int]:
        seconds, errors, swaps, turn = [], [], 0, number
        with Client(server.grpc_url) as client:
            while time.monotonic() < until:
                wanted = [(loras[turn % len(loras)], None)] if turn % (len(loras) + 1) else []
                turn += 1
                try:
                    image = client.generate(PROMPT, seed=number, steps=4, loras=wanted)
                except IntaglioError as error:
                    errors.append(str(error))
                    continue
                seconds.append(image.timings["request"])
                swaps += "lora_swap" in image.timings
        return seconds, errors, swaps

    with ThreadPoolExecutor(sizes.clients) as pool:
        answers = list(pool.map(ask, range(sizes.clients)))
    waits = [second for seconds, _, _ in answers for second in seconds]
    errors = [error for _, some, _ in answers for error in some]
    swaps = sum(swaps for _, _, swaps in answers)
    return {"images": len(waits), "failed": len(errors), "errors": errors[:5], "swaps": swaps, "request_seconds": summary(waits)}


def measure_retraining(server: Server, layers: SwapLayers, folder: Path, *, rank: int) -> dict[str, Any]:
    """A retrained file of the first LoRA of the registry, published, drawn before and after, and taken back."""
    store = LoraStore(server.deployment.build_folder / LORAS_FOLDER)
    lora = next(iter(store.current().loras))
    source = folder / "retrained.safetensors"
    source.write_bytes(random_lora(layers, rank=rank, seed=9))
    publisher = Publisher(store, layers, Samples(folder, PROMPT), server.grpc_url, keep=5)
    try:
        found = publisher.publish(lora, source)
        store.roll_back(lora)
    finally:
        source.unlink()
    assert found is not None
    return {"file_to_first_image_seconds": round(found.seconds, 3), "images_drawn": 2}


def environment() -> dict[str, Any]:
    """The machine, the versions, the commit."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        gpu = "none"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": gpu,
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "commit": commit,
    }


@app.command()
def main(
    config: Annotated[Path, typer.Argument(help="Deployment with swap, built.")],
    *,
    fused: Annotated[Path | None, typer.Option(help="The same deployment without swap, built: what a step is compared with.")] = None,
    out: Annotated[Path, typer.Option(help="JSON to write.")] = Path("benchmarks/results/lora_swap.json"),
    rank: Annotated[int, typer.Option(help="Of the random LoRAs.")] = 64,
    swaps: Annotated[int, typer.Option(help="Swaps of each kind.")] = 10,
    load_seconds: Annotated[float, typer.Option(help="How long clients ask.")] = 60.0,
) -> None:
    """Measure, and write the JSON."""
    sizes = Sizes(swaps=swaps, steps=10, load_seconds=load_seconds, clients=8)
    deployment = load_deployment(config)
    manifest = read_manifest(deployment.build_folder)
    layers = open_layers(manifest, deployment.build_folder)
    store = LoraStore(deployment.build_folder / LORAS_FOLDER)
    console = Console(highlight=False)
    results: dict[str, Any] = {
        "environment": environment(),
        "build": {"key": manifest.key, "runtime": manifest.runtime, "target": manifest.target, "precision": manifest.precision},
        "versions": manifest.versions,
        "rank": rank,
        "not_tried": NOT_TRIED,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("opening the engines", total=6)

        def begin(what: str) -> None:
            progress.update(task, description=what, advance=1)

        with Diffuse(manifest, deployment.build_folder) as diffuse, random_sets(store, layers, out.parent, rank=rank) as loras:
            diffuse.warm_up()
            begin("swaps")
            results["swap"] = measure_swaps(diffuse, loras, count=sizes.swaps)
            begin("bare refits")
            results["refit"] = measure_refit(diffuse, layers, count=sizes.swaps)
            begin("steps")
            results["step"] = {"swapping": measure_step(deployment, manifest, steps=sizes.steps, diffuse=diffuse)}
        if fused is not None:
            begin("steps of the other build")
            other = load_deployment(fused)
            other_manifest = read_manifest(other.build_folder)
            with Diffuse(other_manifest, other.build_folder) as diffuse:
                diffuse.warm_up()
                results["step"]["fused"] = measure_step(other, other_manifest, steps=sizes.steps, diffuse=diffuse)
            results["step"]["ratio"] = round(results["step"]["swapping"]["median"] / results["step"]["fused"]["median"], 4)
        with Server(deployment, endpoints=Endpoints(http_port=0, grpc_port=0, metrics_port=0)) as server:
            begin("load")
            results["load"] = measure_load(server, sizes)
            begin("retraining")
            results["retrain"] = measure_retraining(server, layers, out.parent, rank=rank)
    write_json(out, results)
    console.print_json(data={name: results[name] for name in ("swap", "refit", "step", "load", "retrain")})
    console.print(f"written: {out}")


if __name__ == "__main__":
    app()
