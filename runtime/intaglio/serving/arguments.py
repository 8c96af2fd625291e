"""What Triton is started with: nothing is left to a default that could open or change something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from intaglio.errors import InvalidRequest
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.triton_options import checked_options
from intaglio.telemetry.settings import TelemetrySettings
from intaglio.telemetry.tracing import SERVICE

__all__ = [
    "ALLOCATOR",
    "SECRET_HEADER",
    "TritonSettings",
    "gpu_present",
    "private_options",
    "trace_options",
    "triton_arguments",
]

SECRET_HEADER: Final = "intaglio-admin"
"""Header of a request that carries the administrator's secret."""
_RESTRICTED: Final = "model-repository,shared-memory,logging,trace"
"""Protocols of an administrator. Triton 2.51 cannot switch shared memory off in another way."""
_RESTRICTED_IN_PRODUCTION: Final = f"{_RESTRICTED},model-config,statistics"
"""No client of ours asks for them."""
_KNOWN_OPTIONS: Final = {
    "--allow-client-shm": "false",
    "--grpc-max-response-pool-size": "64",
    "--allow-sagemaker": "false",
    "--allow-vertex-ai": "false",
}
"""Given only where `tritonserver --help` names them: not every release and build of Triton has them."""
_TRACES: Final = "--trace-config"
_PING_MS: Final = 10_000
"""Shortest time between keepalive pings of a waiting client; gRPC's default is five minutes."""
_OUR_PING_MS: Final = 30_000
"""Time between the server's own pings of a client that waits. They notice a client that froze, or that
vanished without closing its connection: its request is cancelled then. Triton's default is two hours.
"""
_ANSWER_MS: Final = 20_000
"""How long the client may take to answer a ping."""
_KEPT_REQUESTS: Final = 0
"""Finished requests that each of Triton's gRPC threads keeps for reuse, with all bytes of their messages.
Triton's default is 8: it then keeps messages of any size for as long as nobody asks.
"""
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
    """Longest time that running and waiting requests may take once the server is told to stop."""
    reloadable: bool = True
    """Whether someone who knows the administrator's secret can load and unload models."""
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    """What the log and the traces are."""
    trace_every: int = 1
    """Every Nth request that brings no trace of its own is traced."""
    options: Sequence[str] = ()
    """Further options of `tritonserver`, as a user wrote them; `checked_options` says which are refused."""


def gpu_present() -> bool:
    """Whether this machine has an NVIDIA device node."""
    return Path("/dev/nvidiactl").exists()


def triton_arguments(
    settings: TritonSettings, *, name: str, shared_memory_prefix: str, backends: Path | None, options: str
) -> list[str]:
    """Command line after the binary, without `private_options`.

    `name` is what the server calls itself; `options` is the text of `tritonserver --help`.

    Raises:
        InvalidRequest: an option of the settings is refused.
    """
    at = settings.endpoints
    arguments: dict[str, object] = {
        "--id": name,
        "--model-repository": settings.repository,
        **_model_control(settings),
        "--exit-on-error": "true",
        # Triton answers nobody before every model is loaded. With strict readiness it would not be ready
        # while a version is loaded beside another, and never again after one that could not be loaded.
        "--strict-readiness": "false",
        "--exit-timeout-secs": settings.drain_seconds,
        "--http-address": at.hosts["http"],
        "--http-port": at.http_port,
        "--grpc-address": at.host,
        "--grpc-port": at.grpc_port,
        "--grpc-http2-min-recv-ping-interval-without-data": _PING_MS,
        "--grpc-keepalive-time": _OUR_PING_MS,
        "--grpc-keepalive-timeout": _ANSWER_MS,
        "--grpc-keepalive-permit-without-calls": 1,  # also those that ask for nothing
        "--grpc-http2-max-pings-without-data": 0,  # no limit: a picture takes longer than two pings
        "--grpc-infer-allocation-pool-size": _KEPT_REQUESTS,
        "--metrics-address": at.hosts["metrics"],
        "--metrics-port": at.metrics_port,
        "--allow-gpu-metrics": str(gpu_present()).lower(),
        "--backend-config": f"python,shm-region-prefix-name={shared_memory_prefix}",
    }
    if at.tls is not None:
        arguments |= at.tls.options
    if backends is not None:
        arguments["--backend-directory"] = backends
    arguments |= {name: value for name, value in _KNOWN_OPTIONS.items() if name in options}
    given = checked_options(settings.options, options)
    traces = trace_options(settings, given)
    replaced = {word.partition("=")[0] for word in given}
    ours = [f"{name}={value}" for name, value in arguments.items() if name not in replaced]
    return ["--disable-auto-complete-config", *ours, *traces, *given]


def trace_options(settings: TritonSettings, given: Sequence[str]) -> list[str]:
    """The options with which Triton sends its own spans to the collector of the stages.

    Raises:
        InvalidRequest: `given`, what a user wrote, sets traces too.
    """
    url = settings.telemetry.traces
    if url is None:
        return []
    if any(word.startswith(_TRACES) for word in given):
        problem = f"{_TRACES} beside server.traces of the configuration"
        raise InvalidRequest("Triton option", problem, allowed="one of the two")
    values = (
        "mode=opentelemetry",
        f"opentelemetry,url={url}",
        f"opentelemetry,resource=service.name={SERVICE}",
        "level=TIMESTAMPS",
        f"rate={settings.trace_every}",
    )
    return [f"{_TRACES}={value}" for value in values]


def private_options(secret: str, *, production: bool = False) -> list[str]:
    """The options that close the administrator's protocols to everybody without `secret`.

    In production HTTP tells only its health, who the server is and what its models take: it asks for no
    certificate.
    """
    names = _RESTRICTED_IN_PRODUCTION if production else _RESTRICTED
    over_http = f"{names},inference" if production else names
    key = f"{SECRET_HEADER}={secret}"
    return [f"--http-restricted-api={over_http}:{key}", f"--grpc-restricted-protocol={names}:{key}"]


def _model_control(settings: TritonSettings) -> dict[str, str]:
    if settings.reloadable:
        return {"--model-control-mode": "explicit", "--load-model": "*"}
    return {"--model-control-mode": "none"}
