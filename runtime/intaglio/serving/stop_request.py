"""A request to stop, which a signal handler may make."""

from __future__ import annotations

import contextlib
import queue

__all__ = ["StopRequest"]


class StopRequest:
    """As `threading.Event`, for one thread that waits. `threading.Event.set` is not for signal handlers: it
    takes a lock, which the thread that the signal interrupts may hold while it waits.
    """

    def __init__(self) -> None:
        self._made = False
        # Of all that wakes a thread, only `put` of this queue may interrupt itself or `get` (says its
        # documentation).
        self._wakings: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def made(self) -> bool:
        """Whether `make` was called."""
        return self._made

    def make(self) -> None:
        """Ask to stop."""
        self._made = True
        self._wakings.put(None)

    def wait(self, seconds: float) -> bool:
        """Whether the request was made, at the latest after `seconds`."""
        if not self._made:
            with contextlib.suppress(queue.Empty):
                self._wakings.get(timeout=seconds)
        return self._made
