"""Where Triton listens and how much it queues: `server` of a deployment's YAML."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from intaglio.contract.yaml_files import Strict
from intaglio.telemetry.event_log import Level, LogFormat
from intaglio.telemetry.settings import checked_traces

__all__ = ["HANG_SECONDS", "MOST_INSTANCES", "Server", "checked_host"]

MOST_INSTANCES: Final = 64
"""Of `diffuse` in one server."""
HANG_SECONDS: Final = 120
"""Of an instance, where `hang_seconds` is absent."""
GpuIndex = Annotated[int, Field(ge=0, lt=MOST_INSTANCES)]

_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_-]{1,63})*", re.ASCII)
_LONGEST_NAME: Final = 253
"""Characters of a name in DNS (RFC 1035, section 2.3.4)."""
_NUMBERS: Final = re.compile(r"[0-9.]+", re.ASCII)


def checked_host(host: str) -> str:
    """`host` itself, which is an IPv4 address or a name of this machine.

    Raises:
        ValueError: it is something else, such as an IPv6 address.
    """
    is_name = len(host) <= _LONGEST_NAME and _NAME.fullmatch(host) is not None
    if _NUMBERS.fullmatch(host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            is_name = False
    if not is_name:
        raise ValueError(f"{host!r} is no host; allowed: an IPv4 address, such as 127.0.0.1, or a name")
    return host


class Server(Strict):
    """Where Triton listens and how much it queues. With port 0 the server picks a free one when it starts."""

    host: str = "127.0.0.1"
    """Address that Triton listens on. `0.0.0.0` lets other machines in (docs/operating.md says what to do
    first).
    """
    http_port: int = Field(default=8000, ge=0, le=65535)
    """Port for HTTP; 0 takes a free one at each start."""
    grpc_port: int = Field(default=8001, ge=0, le=65535)
    """Port for gRPC; 0 takes a free one at each start."""
    metrics_port: int = Field(default=8002, ge=0, le=65535)
    """Port of the Prometheus metrics; 0 takes a free one at each start."""
    queue_size: PositiveInt = 32
    """Requests that may wait; further ones are answered UNAVAILABLE."""
    drain_seconds: int = Field(default=30, ge=1, le=3600)
    """Seconds that running and waiting requests may take once the server is told to stop."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes of `preprocess`, and as many of `postprocess`."""
    gpus: tuple[GpuIndex, ...] | Literal["all"] | None = Field(default=None, min_length=1)
    """CUDA's indices of the cards that draw, such as `[0, 1]`, or `all` that CUDA sees when the server
    starts. One queue feeds them (docs/several_cards.md). Absent: the card of `execution.gpu` alone.
    """
    instances: int = Field(default=1, ge=1, le=MOST_INSTANCES)
    """Processes that draw where the CPU runs the networks. Each has its own copy of them, and one queue feeds
    them. Where cards run the networks, `gpus` says how many draw.
    """
    hang_seconds: int | None = Field(default=None, ge=5, le=3600)
    """Of several that draw, one that has not answered for so long may hang: it is killed where it has taken
    ten times what its slice should take, too (docs/several_cards.md). Refused where one draws. Absent: 120.
    """

    log_format: LogFormat = "text"
    """`json`: every line of the log is a JSON object, those of Triton too (docs/observing.md)."""
    log_level: Level = "info"
    """Events of a request below this level are not logged; `debug` adds a line for each slice."""
    traces: str | None = None
    """Where a collector takes OTLP over HTTP. Without it there are no traces. Needs the extra `traces`."""
    trace_every: PositiveInt = 1
    """Which of the requests that bring no trace of their own are traced: every Nth."""

    _host = field_validator("host")(checked_host)

    @field_validator("gpus")
    @classmethod
    def _different_gpus(cls, gpus: tuple[int, ...] | str | None) -> tuple[int, ...] | str | None:
        if isinstance(gpus, tuple) and len(set(gpus)) != len(gpus):
            raise ValueError("a card is listed twice; allowed: each card once, since it has one instance")
        return gpus

    @model_validator(mode="after")
    def _hang_of_several(self) -> Self:
        one_card = self.gpus is None or (self.gpus != "all" and len(self.gpus) == 1)
        if self.hang_seconds is not None and one_card and self.instances == 1:
            raise ValueError(
                "hang_seconds is for several that draw, and one draws here; allowed: absent, or beside gpus "
                "with several cards or instances above 1"
            )
        return self

    def check_instances(self, *, on_card: bool) -> None:
        """Raise ValueError where `gpus` or `instances` contradicts what runs the networks."""
        if self.gpus is not None and not on_card:
            raise ValueError(
                "server.gpus names cards, but onnxruntime runs the networks on the CPU; "
                "allowed: server.instances, or a runtime for cards"
            )
        if self.instances > 1 and on_card:
            raise ValueError(
                f"server.instances: {self.instances}: a card has one instance; allowed: 1, with the cards "
                "listed in server.gpus"
            )

    @field_validator("traces")
    @classmethod
    def _collector(cls, url: str | None) -> str | None:
        return None if url is None else checked_traces(url)

    @model_validator(mode="after")
    def _different_ports(self) -> Self:
        fixed = [port for port in (self.http_port, self.grpc_port, self.metrics_port) if port]
        if len(set(fixed)) != len(fixed):
            raise ValueError("http_port, grpc_port and metrics_port must differ")
        return self
