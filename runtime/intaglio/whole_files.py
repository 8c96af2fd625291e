"""Files that are written atomically: a reader finds the old content or the new one.

A writer that is killed leaves its temporary file behind, and `remove_leavings` removes it later.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["remove_leavings", "storage_problem", "temporary_files_of", "write_new", "write_whole"]

_INFIX: Final = ".intaglio-"
"""Tells our temporary files from those of other programs, which end in `.tmp`, too."""
_SUFFIX: Final = ".tmp"
_TEMPORARY: Final = re.compile(rf"(?P<name>.+){re.escape(_INFIX)}[a-z0-9_]{{8}}{re.escape(_SUFFIX)}")
"""What `_written_beside` calls its files; `mkstemp` gives the eight characters."""
_LEAVING_SECONDS: Final = 3600.0
"""A temporary file that has not changed for so long has no writer. A file is written in one go, and renamed
immediately. A lock would tell sooner, but other hosts of a network file system do not always see it. A writer
that was stopped for so long gets an OSError, and the old content stays.
"""


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
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}{_INFIX}", suffix=_SUFFIX)
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


def temporary_files_of(path: Path) -> list[Path]:
    """The temporary files of writers of `path`, killed ones and others."""
    matches = ((one, _TEMPORARY.fullmatch(one.name)) for one in path.parent.glob(f"*{_SUFFIX}"))
    return sorted(one for one, match in matches if match and match["name"] == path.name)


def remove_leavings(folder: Path) -> int:
    """Remove the temporary files in and below `folder` that killed writers left; how many there were.

    Files that changed within the last hour stay, since their writers may live. A folder that cannot be read
    keeps all.
    """
    try:
        found = [path for path in folder.rglob(f"*{_SUFFIX}") if _TEMPORARY.fullmatch(path.name)]
    except OSError:  # somebody removes a folder meanwhile
        return 0
    latest = time.time() - _LEAVING_SECONDS
    removed = 0
    for path in found:
        with contextlib.suppress(OSError):  # its writer has just renamed it
            if path.lstat().st_mtime < latest:
                path.unlink()
                removed += 1
    return removed


def storage_problem(error: OSError) -> str:
    """`the disk is full`, or the system's own words."""
    return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
