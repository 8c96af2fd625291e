"""Files that are written atomically: a reader finds the old content or the new one."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["storage_problem", "write_new", "write_whole"]


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
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
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


def storage_problem(error: OSError) -> str:
    """`the disk is full`, or the system's own words."""
    return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
