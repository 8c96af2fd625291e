"""Ask an intaglio server for images over gRPC.

    with Client("127.0.0.1:8001") as client:
        client.generate("a red fox on a beach", seed=7, pose="waving-01").save("fox.png")
        for event in client.stream("a red fox on a beach", preview=128):
            ...  # Queued, Progress, Preview, and at the end Result

`AsyncClient` is the same for asyncio. The package imports values only, so it runs where no server can:
without torch, Triton or modules of POSIX. gRPC is imported with the first name that needs it: the commands of
this package show their help without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from intaglio.errors import (
    Cancelled,
    DeadlineExceeded,
    IntaglioError,
    InvalidRequest,
    QueueFull,
    Stopping,
    SwapFailed,
    Unavailable,
)

if TYPE_CHECKING:
    from intaglio_client.annotation import Annotation
    from intaglio_client.async_client import AsyncClient
    from intaglio_client.async_stream import AsyncStream
    from intaglio_client.client import Client
    from intaglio_client.connections.retries import NO_RETRIES, Retries
    from intaglio_client.connections.tls import Tls
    from intaglio_client.controls import Control
    from intaglio_client.errors import NotServed, ServerError, Unreachable
    from intaglio_client.events import Event, Preview, Progress, Queued, Result
    from intaglio_client.image import Image
    from intaglio_client.parameters import Lora, Parameters
    from intaglio_client.stream import Stream

__all__ = [
    "NO_RETRIES",
    "Annotation",
    "AsyncClient",
    "AsyncStream",
    "Cancelled",
    "Client",
    "Control",
    "DeadlineExceeded",
    "Event",
    "Image",
    "IntaglioError",
    "InvalidRequest",
    "Lora",
    "NotServed",
    "Parameters",
    "Preview",
    "Progress",
    "QueueFull",
    "Queued",
    "Result",
    "Retries",
    "ServerError",
    "Stopping",
    "Stream",
    "SwapFailed",
    "Tls",
    "Unavailable",
    "Unreachable",
]

_LAZY = {
    "Annotation": "intaglio_client.annotation",
    "AsyncClient": "intaglio_client.async_client",
    "AsyncStream": "intaglio_client.async_stream",
    "Client": "intaglio_client.client",
    "Control": "intaglio_client.controls",
    "Event": "intaglio_client.events",
    "Image": "intaglio_client.image",
    "Lora": "intaglio_client.parameters",
    "NO_RETRIES": "intaglio_client.connections.retries",
    "NotServed": "intaglio_client.errors",
    "Parameters": "intaglio_client.parameters",
    "Preview": "intaglio_client.events",
    "Progress": "intaglio_client.events",
    "Queued": "intaglio_client.events",
    "Result": "intaglio_client.events",
    "Retries": "intaglio_client.connections.retries",
    "ServerError": "intaglio_client.errors",
    "Stream": "intaglio_client.stream",
    "Tls": "intaglio_client.connections.tls",
    "Unreachable": "intaglio_client.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
