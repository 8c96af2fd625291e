"""Looks whether the callers of streams are gone, and has their pictures stopped."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["StreamWatch", "WatchedStream"]

_LOOK_SECONDS: Final = 0.02
_WAITING_A_LOOK: Final = 5
"""Streams that one look asks about beside those that are drawn. To ask is a message to Triton's process."""


@dataclass(slots=True, eq=False)
class WatchedStream:
    """A request that streams."""

    sender: Any
    """Of its responses."""
    job: str
    """Id of its picture in `diffuse`."""
    begun: bool = False
    """Whether it has had its turn."""
    cancelled: bool = False


class StreamWatch:
    """A thread from `start` to `close`."""

    def __init__(self, stop: Callable[[WatchedStream], None], *, failed: Callable[[], None]) -> None:
        """`stop` is called again and again for a stream whose caller is gone, until the stream has ended.

        `failed` is called in the handler of an error.
        """
        self._stop = stop
        self._failed = failed
        self._lock = threading.Lock()
        self._streams: list[WatchedStream] = []
        """Those that were looked at last stand last."""
        self._any = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="cancel", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closing = True
        self._any.set()
        self._thread.join()

    @contextlib.contextmanager
    def watching(self, stream: WatchedStream) -> Iterator[None]:
        """Look after `stream` in this block."""
        with self._lock:
            self._streams.append(stream)
            self._any.set()
        try:
            yield
        finally:
            with self._lock:
                self._streams.remove(stream)
                if not self._streams:
                    self._any.clear()

    def _run(self) -> None:
        pause = threading.Event()
        while self._any.wait() and not self._closing:
            for stream in self._next_streams():
                try:
                    self._look(stream)
                except Exception:
                    self._failed()
            pause.wait(_LOOK_SECONDS)

    def _next_streams(self) -> list[WatchedStream]:
        """All streams that are drawn, and the next few of the others."""
        with self._lock:
            drawn = [stream for stream in self._streams if stream.begun]
            waiting = [stream for stream in self._streams if not stream.begun]
            self._streams = [*drawn, *waiting[_WAITING_A_LOOK:], *waiting[:_WAITING_A_LOOK]]
            return [*drawn, *waiting[:_WAITING_A_LOOK]]

    def _look(self, stream: WatchedStream) -> None:
        if stream.cancelled or stream.sender.is_cancelled():
            stream.cancelled = True
            self._stop(stream)
