"""Ctrl-C, SIGTERM and the end of the terminal stop a run between two pictures."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from intaglio.exit_codes import INTERRUPTED, TERMINATED

__all__ = ["Stop", "stopped_by_signals"]

_CODES: Final = {
    number: code
    for name, code in (("SIGINT", INTERRUPTED), ("SIGTERM", TERMINATED), ("SIGHUP", TERMINATED))
    if (number := getattr(signal, name, None)) is not None  # Windows has no SIGHUP
}


@dataclass(slots=True)
class Stop:
    """Whether the run shall stop."""

    code: int | None = None
    """With which exit code; None: it shall not."""

    def is_asked(self) -> bool:
        """Whether it shall."""
        return self.code is not None


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """The first signal is noted in what the block gets, the second one ends the process as it always does.

    Only the main thread may use it, since Python tells only that of signals.
    """
    stop = Stop()
    # What was ignored when the command started, as `nohup` does with a hang-up, stays ignored.
    found = {number: signal.getsignal(number) for number in _CODES}
    before = {number: handler for number, handler in found.items() if handler is not signal.SIG_IGN}

    def note(number: int, frame: object) -> None:
        stop.code = _CODES[signal.Signals(number)]
        for one, handler in before.items():
            signal.signal(one, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
