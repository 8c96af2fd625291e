"""What one server owns outside its processes: a private folder, and its segments in /dev/shm.

Both have the same name. The folder holds a lock that its owner keeps. A folder whose lock is free belongs to
an owner that was killed, and the next server that starts removes it. The owner also locks the folder itself:
systemd-tmpfiles, which removes old files from temporary folders, does not touch a locked folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final, Self

from intaglio.whole_files import write_whole

__all__ = ["SHARED_MEMORY", "Workspace", "http_urls", "workspace_folders"]

SHARED_MEMORY: Final = Path("/dev/shm")
_PREFIX: Final = "intaglio-serve-"
_LOCK: Final = "owner.lock"
_HTTP: Final = "http"
"""Names the host and port where Triton answers over HTTP."""
_log = logging.getLogger(__name__)


class Workspace:
    """A private folder and a prefix of shared memory, from `create` to `remove`."""

    def __init__(self, folder: Path, lock: IO[bytes]) -> None:
        self.folder = folder
        self._lock = lock
        self._http = ""
        self._kept = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # some file systems lock no folders
            fcntl.flock(self._kept, fcntl.LOCK_SH)

    @classmethod
    def create(cls) -> Self:
        """A new workspace; what killed owners left behind is removed first."""
        sweep()
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = (folder / f"{_LOCK}.new").open("ab")
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / f"{_LOCK}.new").rename(folder / _LOCK)  # a lock that others can see is already held
        return cls(folder, lock)

    @property
    def shared_memory_prefix(self) -> str:
        """The beginning of the name of every segment of this server's stubs."""
        return f"{self.folder.name}_"

    def segments(self) -> list[Path]:
        """This server's shared-memory segments."""
        return sorted(SHARED_MEMORY.glob(f"{self.shared_memory_prefix}*"))

    def tell_http(self, url: str) -> None:
        """Say to `http_urls` that Triton answers over HTTP at `url` from now on, `host:port`."""
        if url != self._http:  # a restart must not need room on the disk for what is there
            write_whole(self.folder / _HTTP, url.encode())
            self._http = url

    def remove_segments(self) -> None:
        """Remove the segments; no process of this server may run."""
        _unlink(self.segments())

    def remove(self) -> None:
        """Remove the folder and the segments."""
        self.remove_segments()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()
        os.close(self._kept)


def workspace_folders() -> list[Path]:
    """Workspaces of this user, whether their owners run or not."""
    found = []
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError):  # its owner is removing it
            if folder.lstat().st_uid == os.getuid() and (folder / _LOCK).is_file():
                found.append(folder)
    return found


def http_urls() -> list[str]:
    """Where the running servers of this user answer over HTTP, `host:port` on this machine."""
    found = []
    for folder in workspace_folders():
        with contextlib.suppress(OSError):  # it just starts or ends
            if _has_owner(folder / _LOCK):
                found.append((folder / _HTTP).read_text(encoding="utf-8"))
    return found


def sweep() -> list[str]:
    """Remove the folders and segments of owners that no longer run; returns their names."""
    swept = []
    for folder in workspace_folders():
        try:
            lock = _locked(folder / _LOCK)
        except OSError:
            continue  # its owner is removing it
        if lock is None:
            continue
        with lock:
            _unlink(SHARED_MEMORY.glob(f"{folder.name}_*"))
            shutil.rmtree(folder, ignore_errors=True)
        _log.warning("removed what a killed server left: %s", folder.name)
        swept.append(folder.name)
    return swept


def _has_owner(lock: Path) -> bool:
    """Whether the process that locked `lock` lives.

    Callers that ask at the same time share the lock, so that none takes another for an owner.
    """
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _locked(path: Path) -> IO[bytes] | None:
    """`path` open and locked for as long as it is open; None where another process holds it."""
    file = path.open("r+b")  # makes no file where another process has just removed it
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
