"""Ask an intaglio server for images over gRPC.

    with Client("127.0.0.1:8001") as client:
        client.generate("a red fox on a beach", seed=7, pose="waving-01").save("fox.png")

The package imports values only, so it runs where no server can: without torch, Triton or POSIX file locks.
gRPC is imported with the first name that needs it: the commands of this package show their help without it.
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
    SwapFailed,
    Unavailable,
)

if TYPE_CHECKING:
    from intaglio_client.annotation import Annotation
    from intaglio_client.client import Client
    from intaglio_client.controls import Control
    from intaglio_client.errors import ServerError
    from intaglio_client.image import Image
    from intaglio_client.parameters import Lora, Parameters

__all__ = [
    "Annotation",
    "Cancelled",
    "Client",
    "Control",
    "DeadlineExceeded",
    "Image",
    "IntaglioError",
    "InvalidRequest",
    "Lora",
    "Parameters",
    "QueueFull",
    "ServerError",
    "SwapFailed",
    "Unavailable",
]

_LAZY = {
    "Annotation": "intaglio_client.annotation",
    "Client": "intaglio_client.client",
    "Control": "intaglio_client.controls",
    "Image": "intaglio_client.image",
    "Lora": "intaglio_client.parameters",
    "Parameters": "intaglio_client.parameters",
    "ServerError": "intaglio_client.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
