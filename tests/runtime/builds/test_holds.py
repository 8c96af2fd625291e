"""A folder that a server holds, and one that is being removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from intaglio.builds.holds import locked_unless_held


def test_what_is_removed_cannot_be_taken_up_meanwhile(tmp_path: Path) -> None:
    def lock(kind: int) -> None:
        with folder_descriptor(tmp_path) as descriptor:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)

    with locked_unless_held(tmp_path) as unheld:
        assert unheld
        with pytest.raises(BlockingIOError):
            lock(fcntl.LOCK_SH)
    lock(fcntl.LOCK_EX)
    with folder_descriptor(tmp_path) as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        with locked_unless_held(tmp_path) as unheld:
            assert not unheld


@contextlib.contextmanager
def folder_descriptor(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
