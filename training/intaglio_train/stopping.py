"""Ctrl-C and SIGTERM end a run after its step, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["StopRequest", "stop_request"]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether the run was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.asked = False
        self.signal = int(signal.SIGTERM)
        """SIGTERM, where another process of the run was asked."""


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """The first SIGINT or SIGTERM asks for a stop, so that the step is finished and saved. The second one
    acts as usual.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, frame: Any) -> None:
        stop.asked = True
        stop.signal = number
        _set(before)

    _set(dict.fromkeys(SIGNALS, ask))
    try:
        yield stop
    finally:
        _set(before)


def _set(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
