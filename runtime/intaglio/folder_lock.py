"""One run in a folder: a lock that the operating system holds, and gives back when the process ends.

It works on every system that a client runs on.
"""

# ruff: noqa: PLC0415  (neither module is there on every system)

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from intaglio.errors import Unavailable

__all__ = ["locked"]


@contextmanager
def locked(path: Path, *, work: str) -> Iterator[None]:
    """Hold the lock of the file at `path`, which is made; its folder must be there. `work` says what works in
    the folder, for the error.

    Raises:
        Unavailable: another process holds it.
    """
    with path.open("a+b") as file:
        if not _taken(file):
            raise Unavailable(f"{path.parent}: another {work} works in it; wait for its end, or stop it")
        yield


def _taken(file: IO[bytes]) -> bool:
    """Whether the lock was free and is ours now; closing the file gives it back."""
    try:
        import fcntl
    except ImportError:  # Windows
        return _taken_on_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _taken_on_windows(file: IO[bytes]) -> bool:
    import msvcrt

    module: Any = msvcrt
    file.seek(0)
    try:
        module.locking(file.fileno(), module.LK_NBLCK, 1)
    except OSError:
        return False
    return True
