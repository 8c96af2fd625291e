"""Files that are written atomically: a reader finds the old content or the new one.

A writer that is killed leaves its temporary file behind. It holds a lock on that file as long as it lives, so
`remove_leavings` knows the files of dead writers from those that are just written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

__all__ = ["remove_leavings", "storage_problem", "write_new", "write_whole"]

_SUFFIX: Final = ".tmp"
_LEAVING: Final = re.compile(r".+[a-z0-9_]{8}\.tmp")
"""What `_written_beside` calls its files: `mkstemp` puts eight characters between the name and the suffix."""


def write_whole(path: Path, data: bytes | memoryview, *, mode: int = 0o644) -> None:
    """Write `path` atomically with the permissions `mode`; its folder is made where it is missing.

    Raises:
        OSError: the old content is untouched, and no temporary file remains.
    """
    with _written_beside(path, data, mode) as name:
        os.replace(name, path)


def write_new(path: Path, data: bytes | memoryview) -> None:
    """Write `path` atomically if there is no such file.

    Raises:
        FileExistsError: there is one; it is untouched.
        OSError: as for `write_whole`.
    """
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with _written_beside(path, data) as name:
        try:
            os.link(name, path)  # unlike a rename, it never replaces a file
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            _write_exclusively(path, data)
        os.unlink(name)


def _write_exclusively(path: Path, data: bytes | memoryview) -> None:
    with path.open("xb") as file:
        try:
            file.write(data)
        except BaseException:
            path.unlink()
            raise


@contextmanager
def _written_beside(path: Path, data: bytes | memoryview, mode: int = 0o644) -> Iterator[str]:
    """The name of a temporary file beside `path` with `data` in it; it is removed where the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = _temporary_beside(path)
    kept = os.dup(handle) if _locks() else None  # the lock lasts as long as one descriptor is open
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        yield name
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        if kept is not None:
            os.close(kept)


def _temporary_beside(path: Path) -> tuple[int, str]:
    """Descriptor and name of a new file, locked."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=_SUFFIX)
        if (fcntl := _locks()) is None:
            return handle, name
        with contextlib.suppress(OSError):  # a file system without locks, where nothing is removed either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # `remove_leavings` found it before it was locked


def _locks() -> Any:
    """The module `fcntl`; None on Windows, where an open file cannot be renamed either."""
    try:
        import fcntl  # noqa: PLC0415
    except ImportError:
        return None
    return fcntl


def remove_leavings(folder: Path) -> int:
    """Remove the temporary files in and below `folder` whose writers are dead; how many there were.

    A folder that cannot be read, or whose file system has no locks, keeps them.
    """
    if (fcntl := _locks()) is None:
        return 0
    try:
        found = [path for path in folder.rglob(f"*{_SUFFIX}") if _LEAVING.fullmatch(path.name)]
    except OSError:  # somebody removes a folder meanwhile
        return 0
    removed = 0
    for path in found:
        with contextlib.suppress(OSError):  # its writer lives, or has just renamed it
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed += 1
            finally:
                os.close(descriptor)
    return removed


def storage_problem(error: OSError) -> str:
    """`the disk is full`, or the system's own words."""
    return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
