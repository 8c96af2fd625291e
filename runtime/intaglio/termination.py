"""SIGTERM ends a command as Ctrl-C does: what it holds is given back, and what is half done goes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from intaglio.exit_codes import TERMINATED

__all__ = ["stopped_by_signals"]


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and the hang-up of the terminal end the block like Ctrl-C, so that it leaves nothing half done.

    Only the main thread may use it, since Python tells only that of signals. Windows has no hang-up.
    """

    def stop(number: int, frame: object) -> None:
        sys.exit(TERMINATED)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
