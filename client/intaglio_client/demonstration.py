"""One image of a built deployment, from the start of a server to its stop, and the time of each step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from intaglio.contract.config import Deployment
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio_client.client import Client
from intaglio_client.image import Image
from intaglio_client.parameters import Lora

__all__ = ["LORA", "Stopwatch", "demo_loras", "request_times", "run_demo"]

LORA: Final = "mara"
"""Applied where the deployment swaps LoRAs and has it."""
_STAGES: Final = {
    "preprocess": "preprocess",
    "lora_swap": "LoRA swap",
    "controlnet_swap": "ControlNet swap",
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


def request_times(image: Image) -> dict[str, float]:
    """Seconds of each stage of a request, and of what lies between the stages and the client."""
    found = {label: image.timings[stage] for stage, label in _STAGES.items() if stage in image.timings}
    found["Triton and gRPC"] = image.timings["request"] - sum(found.values())
    return found
