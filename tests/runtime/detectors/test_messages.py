"""Messages over a real socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from intaglio.detectors.messages import Disconnected, receive, send

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.mark.parametrize("data", [b"", b"\0\n", bytes(5 << 20)], ids=["none", "any bytes", "5 MiB"])
def test_a_message_arrives_as_it_was(pair: Pair, data: bytes) -> None:
    head = {"name": "photo\n.png", "shape": [1, 2]}
    sending = threading.Thread(target=send, args=(pair[0], head, data))
    sending.start()
    assert receive(pair[1]) == (head, data)
    sending.join()


def test_nobody_waits_beyond_the_time(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        receive(pair[1], until=time.monotonic() + 0.05)
    with pytest.raises(TimeoutError):
        send(pair[0], {}, bytes(8 << 20), until=time.monotonic() + 0.05)
    with pytest.raises(TimeoutError):
        receive(pair[1], until=time.monotonic() - 1)


def test_the_other_side_is_gone(pair: Pair) -> None:
    pair[0].close()
    with pytest.raises(Disconnected):
        receive(pair[1])
    with pytest.raises(Disconnected):
        send(pair[1], {}, bytes(1 << 20))
