"""A log file with a bound, which one server writes.

A server that finds the file locked by another one takes the next name: `triton.log`, `triton-2.log`, ... A
file that is full is copied to `NAME.1` and emptied. The file itself stays, so its lock does too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from pathlib import Path
from typing import Final

__all__ = ["LOG_MIB", "LogFile"]

LOG_MIB: Final = 16
"""Most MiB of the file, and of the one before it."""
_LIMIT: Final = LOG_MIB * 1024 * 1024
_MOST_SERVERS: Final = 1000


class LogFile:
    """`path` is the file that was taken. Nothing that goes wrong with the disk raises in `write`, since who
    reads a process's output must go on reading.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`, or the first free name beside it.

        Raises:
            OSError: it cannot be opened.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._descriptor = _open_free(path)
        status = os.fstat(self._descriptor)
        self._bounded = stat.S_ISREG(status.st_mode)  # not so where --log is a terminal or a pipe
        self._size = status.st_size
        self._lost = 0

    def write(self, lines: bytes) -> None:
        """Append whole lines; what does not fit on the disk is left out, and the file says so later."""
        if self._bounded and self._size and self._size + len(lines) > _LIMIT:
            self._turn_over()
        note = b""
        if self._lost:  # the file may end within a line
            note = f"\nintaglio: {self._lost} bytes of this log could not be written\n".encode()
        written = 0
        with contextlib.suppress(OSError):
            written = os.write(self._descriptor, note + lines)
        self._size += written
        if written == len(note) + len(lines):
            self._lost = 0
        else:
            self._lost += len(lines) - max(0, written - len(note))

    def close(self) -> None:
        """Give the file's name free."""
        os.close(self._descriptor)

    def _turn_over(self) -> None:
        older = self.path.with_name(f"{self.path.name}.1")
        try:
            shutil.copyfile(self.path, older)
        except OSError:  # no room for both: the newer lines are worth more
            with contextlib.suppress(OSError):
                older.unlink()
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            self._size = 0


def _open_free(path: Path) -> tuple[Path, int]:
    """The first of `path` and the names beside it that no other server writes, and its descriptor."""
    for number in range(1, _MOST_SERVERS + 1):
        candidate = path
        if number > 1:
            candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        descriptor = os.open(candidate, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if _is_ours(descriptor):
            return candidate, descriptor
        os.close(descriptor)
    raise OSError(errno.EBUSY, f"{_MOST_SERVERS} servers write logs here", os.fspath(path))


def _is_ours(descriptor: int) -> bool:
    """Whether no other server holds the lock of this file, which this call takes."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return True  # a terminal or a pipe, which others may write too
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # some file systems lock nothing; appended lines stay whole
    return True
