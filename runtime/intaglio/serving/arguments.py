"""What Triton is started with: nothing is left to a default that could open or change something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from intaglio.serving.endpoints import Endpoints

__all__ = ["ALLOCATOR", "SECRET_HEADER", "TritonSettings", "gpu_present", "triton_arguments"]

SECRET_HEADER: Final = "intaglio-admin"
"""Header of a request that carries the administrator's secret."""
_RESTRICTED: Final = "model-repository,shared-memory,logging,trace"
"""Protocols of an administrator. Triton 2.51 cannot switch shared memory off in another way."""
_KNOWN_OPTIONS: Final = {
    "--allow-client-shm": "false",
    "--grpc-max-response-pool-size": "64",
    "--allow-sagemaker": "false",
    "--allow-vertex-ai": "false",
}
"""Given only where `tritonserver --help` names them: not every release and build of Triton has them."""
_PING_MS: Final = 10_000
"""Shortest time between keepalive pings of a waiting client; gRPC's default is five minutes."""
ALLOCATOR: Final = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
"""Environment that lets glibc keep up to 64 MiB of freed memory an arena. Without it glibc returns the pages
of each picture's copies to the kernel, which clears them again for the next picture. By default glibc also
makes eight arenas a core.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonSettings:
    """What to serve, where, and how long to wait."""

    repository: Path
    endpoints: Endpoints
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the server's environment."""
    load_seconds: float = 900.0
    """Longest time that a start may take: a TensorRT deployment reads gigabytes of plans."""
    drain_seconds: int = 30
    """Longest time that running requests may take once the server is told to stop."""
    reloadable: bool = True
    """Whether someone who knows the administrator's secret can load and unload models."""


def gpu_present() -> bool:
    """Whether this machine has an NVIDIA device node."""
    return Path("/dev/nvidiactl").exists()


def triton_arguments(
    settings: TritonSettings, *, secret: str, shared_memory_prefix: str, backends: Path | None, options: str
) -> list[str]:
    """Command line after the binary.

    `secret` opens the administrator's protocols; `options` is the text of `tritonserver --help`.
    """
    at = settings.endpoints
    arguments: dict[str, object] = {
        "--model-repository": settings.repository,
        **_model_control(settings),
        "--exit-on-error": "true",
        # Triton answers nobody before every model is loaded. With strict readiness it would not be ready
        # while a version is loaded beside another, and never again after one that could not be loaded.
        "--strict-readiness": "false",
        "--exit-timeout-secs": settings.drain_seconds,
        "--http-address": at.host,
        "--http-port": at.http_port,
        "--http-restricted-api": f"{_RESTRICTED}:{SECRET_HEADER}={secret}",
        "--grpc-address": at.host,
        "--grpc-port": at.grpc_port,
        "--grpc-restricted-protocol": f"{_RESTRICTED}:{SECRET_HEADER}={secret}",
        "--grpc-http2-min-recv-ping-interval-without-data": _PING_MS,
        "--metrics-address": at.host,
        "--metrics-port": at.metrics_port,
        "--allow-gpu-metrics": str(gpu_present()).lower(),
        "--backend-config": f"python,shm-region-prefix-name={shared_memory_prefix}",
    }
    if backends is not None:
        arguments["--backend-directory"] = backends
    arguments |= {name: value for name, value in _KNOWN_OPTIONS.items() if name in options}
    return ["--disable-auto-complete-config", *(f"{name}={value}" for name, value in arguments.items())]


def _model_control(settings: TritonSettings) -> dict[str, str]:
    if settings.reloadable:
        return {"--model-control-mode": "explicit", "--load-model": "*"}
    return {"--model-control-mode": "none"}
