"""Signals that end a command in order, as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Final

__all__ = ["stopped_by_signals"]

_NAMES: Final = ("SIGTERM", "SIGHUP")
"""Windows has no hang-up."""


@contextlib.contextmanager
def stopped_by_signals(*, code: int) -> Iterator[None]:
    """SIGTERM and the hang-up of the terminal raise SystemExit(code) in this block, which is left in order.

    Python tells only the main thread of signals: in others this does nothing. A hang-up that was ignored when
    the command started, as by `nohup`, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        sys.exit(code)

    known = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    heard = [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
