"""Files that are written atomically: a reader finds the old content or the new one."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

__all__ = ["storage_problem", "write_whole"]


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write `path` atomically, readable by everybody; its folder is made where it is missing.

    Raises:
        OSError: the old content is untouched, and no temporary file remains.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def storage_problem(error: OSError) -> str:
    """`the disk is full`, or the system's own words."""
    return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
