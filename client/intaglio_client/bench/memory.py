"""The most memory that a server on this machine holds while a load runs, of the host and of the card."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import psutil

from intaglio.engines.card import CardMemory, read_card_memory
from intaglio.errors import ConfigError
from intaglio_client.bench.turns import server_process

__all__ = ["Memory", "MemoryWatch", "local_process"]

_EVERY_SECONDS: Final = 0.2
_HERE: Final = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class Memory:
    """The most at any moment."""

    host_bytes: int
    """Of all processes of the server together: memory of their own, without mapped files and without what
    they share with each other.
    """
    card_bytes: int | None = None
    """In use on the card, whoever uses it; None where the server uses none."""


def local_process(url: str) -> psutil.Process | None:
    """The server's process; None where `url` is of another machine, or the process of another user."""
    if url.rpartition(":")[0] not in _HERE:
        return None
    try:
        return server_process(url)
    except (ConfigError, psutil.Error):
        return None


class MemoryWatch:
    """Looks at the server five times a second while the `with` block runs."""

    def __init__(
        self,
        process: psutil.Process | None,
        *,
        card: int | None = None,
        read: Callable[[int], CardMemory | None] = read_card_memory,
    ) -> None:
        """`process` None: nothing is looked at. `card` is CUDA's index of the card that the server uses."""
        self._process = process
        self._card = card
        self._read = read
        self._host = 0
        self._used: int | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="server's memory", daemon=True)

    @property
    def peak(self) -> Memory | None:
        """The most that was seen; None where nothing was looked at."""
        return Memory(self._host, self._used) if self._host else None

    def __enter__(self) -> Self:
        if self._process is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._process is not None:
            self._thread.join()

    def _watch(self) -> None:
        while True:
            self._look()
            if self._ended.wait(_EVERY_SECONDS):
                return

    def _look(self) -> None:
        assert self._process is not None
        try:
            processes = [self._process, *self._process.children(recursive=True)]
        except psutil.Error:  # it has ended, and the load tells why
            return
        self._host = max(self._host, sum(map(_own_bytes, processes)))
        used = None if self._card is None else self._read(self._card)
        if used is not None:
            self._used = max(self._used or 0, used.used)


def _own_bytes(process: psutil.Process) -> int:
    try:
        found = process.memory_info()
    except psutil.Error:  # a process that has just ended holds nothing
        return 0
    return int(found.rss - found.shared)
