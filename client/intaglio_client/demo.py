"""`intaglio demo`: build, serve, generate and stop once, and print where the time went."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from intaglio.contract.config import Deployment, load_deployment
from intaglio.errors import BuildError
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio_client.client import Client
from intaglio_client.image import Image
from intaglio_client.parameters import Lora

__all__ = ["app", "run_demo"]

app = typer.Typer(
    name="demo", add_completion=False, help="Build, serve, generate and stop once; print where the time went."
)

PROMPT: Final = "mara in a yellow shirt and red trousers waving hello on a beach"
POSE: Final = "waving-03-mirrored"
LORA: Final = "mara"
SEED: Final = 7
_STAGES: Final = {
    "preprocess": "preprocess",
    "lora_swap": "LoRA swap",
    "text_encoders": "text encoders",
    "denoise": "denoise",
    "vae": "vae",
    "postprocess": "postprocess",
}


@dataclass
class Stopwatch:
    """Seconds by step, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the `with` block."""
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


@app.command()
def demo(
    config: Annotated[Path, typer.Argument(help="Deployment YAML.")] = Path("configs/miniature.yaml"),
    *,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("out/demo.png"),
    prompt: Annotated[str, typer.Option(help="What to draw.")] = PROMPT,
    pose: Annotated[str, typer.Option(help="A pose of the library.")] = POSE,
    seed: Annotated[int, typer.Option(help="Another seed, another picture.")] = SEED,
) -> None:
    """Build, serve on free ports, generate one image and stop; print where the time went."""
    console = Console(highlight=False, soft_wrap=True)
    watch = Stopwatch()
    deployment = load_deployment(config)
    with watch.step("build"):
        if subprocess.run([sys.executable, "-m", "intaglio", "build", str(config)], check=False).returncode:
            raise BuildError(f"intaglio build {config} failed; its reason is above")
    image, memory = run_demo(deployment, watch, prompt=prompt, pose=pose, seed=seed)
    image.save(out)
    loras = ", ".join(lora.id for lora in demo_loras(deployment)) or "none"
    console.print(f"\n{prompt!r}, pose {pose}, LoRA {loras}, seed {image.seed} → [bold]{out}[/]\n")
    console.print(_time_table(watch, image))
    shares = ", ".join(f"{name} {value / 2**20:.0f} MiB" for name, value in memory.items())
    console.print(f"\nserver memory: {sum(memory.values()) / 2**30:.2f} GiB resident ({shares})")


def demo_loras(deployment: Deployment) -> list[Lora]:
    """The fused LoRAs; where LoRAs are swapped, the demo's own LoRA if the registry has it."""
    if deployment.fused:
        return [Lora(name) for name in deployment.fused]
    return [Lora(LORA)] if LORA in deployment.loras else []


def run_demo(
    deployment: Deployment, watch: Stopwatch, *, prompt: str, pose: str, seed: int
) -> tuple[Image, dict[str, int]]:
    """Serve a built deployment on free ports and generate one image. Returns the image and the resident bytes
    of every process.
    """
    server = Server(deployment, endpoints=Endpoints())
    with watch.step("start Triton"):
        server.__enter__()
    try:
        with watch.step("generate"), Client(server.grpc_url) as client:
            image = client.generate(prompt, pose=pose, seed=seed, loras=demo_loras(deployment))
        memory = server.process.resident_bytes()
    finally:
        with watch.step("stop Triton"):
            server.close()
    return image, memory


def _time_table(watch: Stopwatch, image: Image) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    for name, seconds in watch.seconds.items():
        table.add_row(name, f"{seconds:.2f} s")
        if name == "generate":
            for label, part in _request_times(image).items():
                table.add_row(f"  {label}", f"{part:.3f} s")
    table.add_row("[bold]total[/]", f"[bold]{sum(watch.seconds.values()):.2f} s[/]")
    return table


def _request_times(image: Image) -> dict[str, float]:
    """Seconds of each stage of a request, and of what lies between the stages and the client."""
    found = {label: image.timings[stage] for stage, label in _STAGES.items() if stage in image.timings}
    found["Triton and gRPC"] = image.timings["request"] - sum(found.values())
    return found
