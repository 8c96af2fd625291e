"""What the terminal itself says that it can do."""

# ruff: noqa: PLC0415  (these modules exist on POSIX only)

from __future__ import annotations

import os
import re
import time
from typing import Final

from intaglio_client.terminal.foreground import is_foreground

__all__ = ["has_sixels"]

_SECONDS: Final = 0.2
"""How long a terminal may take to answer."""
_ATTRIBUTES: Final = re.compile(rb"\x1b\[\?([\d;]*)c")
_SIXELS: Final = b"4"


def has_sixels() -> bool:
    """Whether the terminal of this process shows sixels: it is asked for its primary attributes (DA1).

    False where there is no terminal, or another job has it, or it does not answer, or this is not POSIX.
    """
    try:
        import termios
        import tty
    except ImportError:
        return False
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        if not is_foreground(terminal):  # to ask would stop this process
            return False
        before = termios.tcgetattr(terminal)
        try:
            tty.setcbreak(terminal)  # unlike raw mode, it leaves Ctrl-C alone
            os.write(terminal, b"\x1b[c")
            answer = _answer(terminal)
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
    except (OSError, termios.error):
        return False
    finally:
        os.close(terminal)
    found = _ATTRIBUTES.search(answer)
    return found is not None and _SIXELS in found[1].split(b";")


def _answer(terminal: int) -> bytes:
    """What the terminal answers, up to the end of its attributes."""
    import select

    answer = b""
    until = time.monotonic() + _SECONDS
    while not _ATTRIBUTES.search(answer) and (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([terminal], [], [], left)
        part = os.read(terminal, 1024) if ready else b""
        if not part:  # it says nothing more, or it is gone
            break
        answer += part
    return answer
