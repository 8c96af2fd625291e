"""Where Triton listens, and to whom."""

from __future__ import annotations

import contextlib
import errno
import socket
from dataclasses import dataclass, replace

from intaglio.contract.server import Server as ServerSettings
from intaglio.errors import ConfigError
from intaglio.serving.server_tls import ServerTls

__all__ = ["Endpoints", "choose_ports", "configured_endpoints", "ports_are_free"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Hosts and ports; port 0 is any free one, which `choose_ports` picks."""

    host: str = "127.0.0.1"
    http_host: str | None = None
    """Of HTTP; None: `host`."""
    metrics_host: str | None = None
    """Of the metrics; None: `host`."""
    http_port: int = 0
    grpc_port: int = 0
    metrics_port: int = 0
    tls: ServerTls | None = None
    """Of gRPC; None: plain text."""
    production: bool = False
    """Close what no client of ours needs, and refuse a Triton with published weaknesses."""

    @property
    def ports(self) -> dict[str, int]:
        """Port of `http`, `grpc` and `metrics`."""
        return {"http": self.http_port, "grpc": self.grpc_port, "metrics": self.metrics_port}

    @property
    def hosts(self) -> dict[str, str]:
        """Host of `http`, `grpc` and `metrics`."""
        return {
            "http": self.host if self.http_host is None else self.http_host,
            "grpc": self.host,
            "metrics": self.host if self.metrics_host is None else self.metrics_host,
        }

    def url(self, protocol: str) -> str:
        """`host:port` of `http`, `grpc` or `metrics`, as a client on this machine names it."""
        host = self.hosts[protocol]
        reachable = "127.0.0.1" if host in ("0.0.0.0", "") else host
        return f"{reachable}:{self.ports[protocol]}"


def configured_endpoints(server: ServerSettings) -> Endpoints:
    """Where the deployment's configuration says that Triton listens."""
    return Endpoints(
        host=server.host,
        http_port=server.http_port,
        grpc_port=server.grpc_port,
        metrics_port=server.metrics_port,
    )


def choose_ports(endpoints: Endpoints) -> Endpoints:
    """`endpoints` with free ports in the place of zeros.

    Raises:
        ConfigError: another process listens on a port, two ports are the same, or the host is not this
            machine's.
    """
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        for name, port in endpoints.ports.items():
            host = endpoints.hosts[name]
            # Held until the last port is bound, so that two free ones differ.
            bound = stack.enter_context(socket.socket())
            if port:  # a server that ended a moment ago is not in the way
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                bound.bind((host, port))
            except OSError as error:
                if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                    cure = "give an address of this machine with --host, or 0.0.0.0 for all"
                else:
                    cure = f"give a free one with --{name}-port (0 picks one)"
                raise ConfigError(f"{name} port {host}:{port}: {error.strerror}; {cure}") from error
            found = bound.getsockname()[1]
            if found in chosen.values():
                raise ConfigError(f"{name} port {port} is another's too; give each its own (0 picks one)")
            chosen[name] = found
    return replace(
        endpoints, http_port=chosen["http"], grpc_port=chosen["grpc"], metrics_port=chosen["metrics"]
    )


def ports_are_free(endpoints: Endpoints) -> bool:
    """Whether no process listens on a port of `endpoints`."""
    try:
        choose_ports(endpoints)
    except ConfigError:
        return False
    return True
