"""With which code a command ends. docs/commands.md has the same table.

A script may run a command again that ended with `LATER`, and nothing needs to change before it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from intaglio.errors import DeadlineExceeded, InvalidRequest, Unavailable

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "LATER",
    "TERMINATED",
    "USAGE",
    "exit_code_of",
]

FAILED: Final = 1
USAGE: Final = 2
LATER: Final = 75
"""EX_TEMPFAIL of sysexits.h."""
INTERRUPTED: Final = 130
"""As a shell reports SIGINT: 128 and the signal's number."""
TERMINATED: Final = 143
"""As a shell reports SIGTERM."""
EXIT_CODES: Final[Mapping[int, str]] = {
    0: "done",
    FAILED: "failed: a file, a build, a LoRA or this machine has to change first",
    USAGE: "the command line is wrong, or a value in it is not allowed",
    LATER: "not now: no server answers yet, or it is busy; the same command may work later",
    INTERRUPTED: "interrupted with Ctrl-C",
    TERMINATED: "stopped with SIGTERM; the same `intaglio train`, `intaglio tune`, `intaglio batch` or "
    "`intaglio bench` goes on from there",
}


def exit_code_of(error: BaseException) -> int:
    """The code of a command that ends with `error`."""
    match error:
        case InvalidRequest():
            return USAGE
        case Unavailable() | DeadlineExceeded() | BlockingIOError():
            return LATER
        case KeyboardInterrupt():
            return INTERRUPTED
        case _:
            return FAILED
