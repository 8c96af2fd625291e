"""The server that is measured, and one picture of each kind from it before anything is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from intaglio.contract.config import Deployment
from intaglio.contract.models import SDXL_STREAM
from intaglio.errors import ConfigError, InvalidRequest, Unavailable
from intaglio_client.address import DEFAULT_URL
from intaglio_client.bench.runs import Asked
from intaglio_client.client import Client
from intaglio_client.events import Result
from intaglio_client.image import Image
from intaglio_client.tune.serving import Asked as AskedServer
from intaglio_client.tune.serving import served

__all__ = ["Served", "measured_server", "served_model"]


@dataclass(frozen=True)
class Served:
    """What answered, and how long each kind of request took alone."""

    url: str
    model: Mapping[str, Any]
    """What the pictures say of the model: base, build, precision, runtime."""
    seconds: Mapping[str, float]
    """By kind of request; an estimate, for the bar."""


@contextmanager
def measured_server(
    url: str | None, deployment: Deployment | None, *, report: Callable[[str], None]
) -> Iterator[Client]:
    """A client of the server at `url`, else of one that serves the build of `deployment`, else of the usual
    address.

    Raises:
        Unavailable: nothing answers.
        EngineMismatch, ConfigError: the build cannot be served.
    """
    if deployment is not None:
        with served(deployment, AskedServer(url), report=report) as client:
            yield client
        return
    at = url or DEFAULT_URL
    with Client(at) as client:
        if not client.is_ready():
            raise Unavailable(f"no server is ready at {at}; with --config, bench starts one of a build")
        report(f"measuring {at}")
        yield client


def served_model(client: Client, firsts: Sequence[Asked], *, report: Callable[[str], None]) -> Served:
    """Ask for one picture of each kind. What the server refuses is refused here, before anything is measured.

    Raises:
        ConfigError: the server refuses a kind; says which and why.
        Unavailable, ServerError: see `intaglio.errors`.
    """
    report(f"asking for a picture of each of {len(firsts)} kinds of requests")
    model: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for one in firsts:
        try:
            image = _picture(client, one)
        except InvalidRequest as error:
            raise ConfigError(f"requests.{one.kind}: the server refuses it: {error}") from error
        # The LoRAs are the request's; the rest is the same for every picture of a build.
        model = {name: value for name, value in image.metadata["model"].items() if name != "loras"}
        model["intaglio"] = image.metadata.get("intaglio")
        seconds[one.kind] = max(seconds.get(one.kind, 0.0), image.timings.get("request", 1.0))
    return Served(client.url, model, seconds)


def _picture(client: Client, one: Asked) -> Image:
    if one.model is not SDXL_STREAM:
        return client.generate_batch(one.prompt, **one.parameters)[0]  # type: ignore[arg-type]
    with client.stream(one.prompt, **one.parameters) as events:  # type: ignore[arg-type]
        for event in events:
            if isinstance(event, Result):
                return event.image
    raise Unavailable("a stream ended without its picture")
