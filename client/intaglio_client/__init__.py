"""Ask an intaglio server for images over gRPC.

    with Client("127.0.0.1:8001") as client:
        client.generate("a red fox on a beach", seed=7, pose="waving-01").save("fox.png")

The package imports values only, so it runs where no server can: without torch, Triton or POSIX file locks.
"""

from intaglio.errors import (
    Cancelled,
    DeadlineExceeded,
    IntaglioError,
    InvalidRequest,
    QueueFull,
    SwapFailed,
    Unavailable,
)
from intaglio_client.client import Client
from intaglio_client.controls import Control
from intaglio_client.errors import ServerError
from intaglio_client.image import Image
from intaglio_client.parameters import Lora, Parameters

__all__ = [
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
