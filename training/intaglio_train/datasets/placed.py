"""Files in a new folder, as links or copies; the folder is there as a whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from intaglio_train.errors import DataError

__all__ = ["check_free", "new_folder", "place"]


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into. It becomes `out` at the end of the block; where the block fails, it goes.

    Raises:
        DataError: `out` is there and not empty.
    """
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}-{secrets.token_hex(4)}.part")
    try:
        partial.mkdir()
        yield partial
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_free(out: Path) -> None:
    """Raises `DataError` where `out` is a file, or a folder that holds something."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise DataError(f"{out}: is there and not empty; name a new folder")


def place(source: Path, target: Path, *, copy: bool) -> None:
    """Make `target` a hard link to `source`: no bytes are written twice. A copy where links do not work."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy:
        try:
            os.link(source.resolve(), target)
        except FileExistsError:  # a copy would be written into whatever it is linked to
            raise
        except OSError:  # another file system, or one without links
            pass
        else:
            return
    shutil.copyfile(source, target)
