"""Where Triton listens and how much it queues: `server` of a deployment's YAML."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from intaglio.contract.yaml_files import Strict

__all__ = ["Server"]


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
    workers: int = Field(default=1, ge=1, le=64)
    """Processes of `preprocess`, and as many of `postprocess`."""

    @model_validator(mode="after")
    def _different_ports(self) -> Self:
        fixed = [port for port in (self.http_port, self.grpc_port, self.metrics_port) if port]
        if len(set(fixed)) != len(fixed):
            raise ValueError("http_port, grpc_port and metrics_port must differ")
        return self
