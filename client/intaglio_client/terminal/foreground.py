"""Whether this process may use its terminal now, or another job has it.

A job in the background is stopped by the kernel (SIGTTOU) when it changes the terminal's settings, and where
`stty tostop` is set also when it writes.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import IO

__all__ = ["is_foreground", "written_from_background"]


def is_foreground(terminal: int | IO[str]) -> bool:
    """False where `terminal`, a descriptor or a file, is that of this process and another job has it.

    True for everything else: other files, and systems without jobs.
    """
    try:
        descriptor = terminal if isinstance(terminal, int) else terminal.fileno()
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except (AttributeError, OSError, ValueError):
        return True


@contextlib.contextmanager
def written_from_background() -> Iterator[None]:
    """Whatever is written in this block does not stop the process."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
