"""Messages between a server and its process of detectors: a head of JSON and bytes, over a socket.

Each message is the length of its head and of its bytes (two unsigned 32-bit numbers), the head, the bytes.
The server first sends a `Setting`, and then photographs, each with a `Question`. Each gets an answer.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from intaglio.contract.detectors import DetectorSource
from intaglio.contract.yaml_files import RegistryId, Strict

__all__ = ["Disconnected", "Question", "Setting", "receive", "send"]

_LENGTHS: Final = struct.Struct("<II")
_READ_BYTES: Final = 1 << 20


class Setting(Strict):
    """What the process of detectors needs to know."""

    detectors: dict[RegistryId, DetectorSource]
    cache: Path
    """Folder of kept detections."""
    most_pixels: int
    """Of a photograph."""
    idle_seconds: float
    """The process ends when no photograph came for so long."""


class Question(Strict):
    """What to make of the photograph in the same message."""

    detector: RegistryId
    name: str
    """What errors call the photograph."""
    seconds: float
    """How long the answer may take."""


class Disconnected(Exception):  # noqa: N818  (it is no error of its own: the caller says what it means)
    """The other side closed the socket."""


def send(
    connection: socket.socket, head: Mapping[str, Any], data: bytes = b"", *, until: float | None = None
) -> None:
    """Send one message before the time `until` of `time.monotonic`; None waits for any time.

    Raises:
        TimeoutError: the other side did not take it in time.
        Disconnected: the other side closed the socket.
    """
    encoded = json.dumps(head).encode()
    try:
        connection.settimeout(_left(until))
        connection.sendall(_LENGTHS.pack(len(encoded), len(data)) + encoded + data)
    except ConnectionError as error:
        raise Disconnected from error


def receive(connection: socket.socket, *, until: float | None = None) -> tuple[dict[str, Any], bytes]:
    """The next message: its head and its bytes. `until` as in `send`.

    Raises:
        TimeoutError: it did not come in time.
        Disconnected: the other side closed the socket.
    """
    head_bytes, data_bytes = _LENGTHS.unpack(_received(connection, _LENGTHS.size, until))
    head: dict[str, Any] = json.loads(_received(connection, head_bytes, until))
    return head, _received(connection, data_bytes, until)


def _received(connection: socket.socket, count: int, until: float | None) -> bytes:
    found = bytearray()
    while len(found) < count:
        connection.settimeout(_left(until))
        try:
            part = connection.recv(min(count - len(found), _READ_BYTES))
        except ConnectionError as error:
            raise Disconnected from error
        if not part:
            raise Disconnected
        found += part
    return bytes(found)


def _left(until: float | None) -> float | None:
    """Seconds until then. A timeout of 0 would mean another thing, not to wait."""
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
