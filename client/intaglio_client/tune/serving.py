"""The server that draws: one that runs already, or one that is started for the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import Deployment
from intaglio.errors import ConfigError, Unavailable
from intaglio.serving.control import controlled_servers
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio_client.client import Client
from intaglio_client.image import Image

__all__ = ["Asked", "check_served", "served"]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which server the user asks for."""

    url: str | None = None
    """None: a server of the build that this user runs here, or else one that is started."""
    deadline: float | None = None
    """Seconds that a picture may take; None: any time."""


@contextmanager
def served(deployment: Deployment, asked: Asked, *, report: Callable[[str], None]) -> Iterator[Client]:
    """A client of the server that is asked for. One that is started has free ports and ends with the block.

    Raises:
        Unavailable: nothing answers at `asked.url`.
        EngineMismatch, ConfigError: the build cannot be served (`Server`).
    """
    at = asked.url or _running(deployment)
    if at is not None:
        with Client(at, deadline=asked.deadline) as client:
            if not client.is_ready():
                raise Unavailable(f"no server is ready at {at}; without --url, one of the build is started")
            report(f"drawing at {at}")
            yield client
        return
    report(f"starting a server of {deployment.build_folder}")
    started = Server(deployment, endpoints=Endpoints())
    with started as server, Client(server.grpc_url, deadline=asked.deadline) as client:
        yield client


def _running(deployment: Deployment) -> str | None:
    for server in controlled_servers(deployment.build_folder):
        with Client(server.grpc_url) as client:
            if client.is_ready():
                return server.grpc_url
    return None


def check_served(image: Image, manifest: BuildManifest, *, url: str) -> None:
    """Raise ConfigError where another build than `manifest` drew `image`."""
    found = image.metadata.get("model", {}).get("build")
    if found != manifest.key:
        raise ConfigError(
            f"the server at {url} serves another build than the one on disk; reload it, or leave --url out"
        )
