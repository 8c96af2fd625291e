"""A server whose pictures follow from what is asked, as those of a real one do."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import PIL.Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ..fake_server import FakeServer, Refusal, response

Answer = Refusal | None
"""A refusal, or None for a picture."""


@dataclass
class SeedServer(FakeServer):
    """Draws 16x16 pixels. `refused` is asked with the number of the request and its inputs."""

    answers: list[Any] = field(default_factory=list)
    build: str = "b1"
    is_ready: Callable[[], bool] = lambda: True
    refused: Callable[[int, dict[str, Any]], Answer] = lambda number, inputs: None
    gate: threading.Event = field(default_factory=threading.Event)
    """Pictures are drawn only while it is set."""
    permits: threading.Semaphore | None = None
    """Each picture takes one."""
    waiting: int = 0
    """Requests that wait for the gate or a permit."""
    drawn: list[dict[str, Any]] = field(default_factory=list)
    cancelled: int = 0
    _one: threading.Lock = field(default_factory=threading.Lock)

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802  (gRPC's name)
        return service_pb2.ModelReadyResponse(ready=self.is_ready())

    def _answered(self, request: Any, context: Any) -> Iterator[Any]:
        with self._one:
            number = len(self.requests)
            self.requests.append(request)
            inputs = self.inputs(number)
        refusal = self.refused(number, inputs)
        if refusal is not None:
            context.abort(refusal.status, refusal.message)
        with self._one:
            self.waiting += 1
        may_draw = self._waited(context)
        with self._one:
            self.waiting -= 1
            self.cancelled += not may_draw
        if may_draw:
            self.drawn.append(inputs)
            yield self.picture(inputs)

    def _waited(self, context: Any) -> bool:
        """Whether the picture may be drawn: not where the caller went away."""
        while not self.gate.wait(0.01) or not (self.permits is None or self.permits.acquire(timeout=0.01)):
            if not context.is_active():
                return False
        return True

    def picture(self, inputs: dict[str, Any]) -> Any:
        """Deterministic noise, darker for even seeds."""
        asked = {name: value for name, value in inputs.items() if name not in ("priority", "deadline")}
        digest = hashlib.sha256(json.dumps([self.build, asked], sort_keys=True).encode()).digest()
        noise = np.random.default_rng(list(digest)).integers(0, 100, (16, 16, 3))
        pixels = (noise + 150 * (asked["seed"] % 2)).astype(np.uint8)
        encoded = io.BytesIO()
        PIL.Image.fromarray(pixels).save(encoded, asked.get("output_format", "png").upper())
        metadata = {**asked, "model": {"build": self.build, "loras": {}}}
        return response(
            event=[b'{"kind": "result"}'],
            image=[encoded.getvalue()],
            metadata=[json.dumps(metadata).encode()],
            timings=[b'{"denoise": 0.5}'],
        )


@contextmanager
def seed_server(server: SeedServer | None = None, *, port: int = 0) -> Iterator[SeedServer]:
    """The server on a free port, or on `port`."""
    servicer = server or SeedServer()
    servicer.gate.set()
    running = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, running)
    bound = running.add_insecure_port(f"127.0.0.1:{port}")
    servicer.url = f"127.0.0.1:{bound}"
    running.start()
    try:
        yield servicer
    finally:
        servicer.gate.set()
        running.stop(grace=None).wait()
