"""What a server serves is not removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from intaglio.builds.file_checks import FileDigest
from intaglio.builds.holds import BuildHold, locked_unless_held

NOTHING = FileDigest(sha256="0" * 64, size=0)


def test_folders_are_held_until_they_are_released(tiny: Any, tmp_path: Path) -> None:
    engine, other = tmp_path / "engines" / "unet-1", tmp_path / "engines" / "unet-0"
    for folder in (engine, other):
        folder.mkdir(parents=True)
    files = {"engines/unet-1/unet.plan": NOTHING, "poses/gone/a.json": NOTHING}
    hold = BuildHold(tmp_path, tiny.manifest.model_copy(update={"networks": {}, "files": files}))
    with locked_unless_held(engine) as unheld:
        assert not unheld
    with locked_unless_held(other) as unheld:
        assert unheld
    hold.release()
    with locked_unless_held(engine) as unheld:
        assert unheld


def test_two_readers_hold_one_folder(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "engines" / "unet-1").mkdir(parents=True)
    manifest = tiny.manifest.model_copy(update={"networks": {}, "files": {"engines/unet-1/x": NOTHING}})
    first, second = BuildHold(tmp_path, manifest), BuildHold(tmp_path, manifest)
    first.release()
    with locked_unless_held(tmp_path / "engines" / "unet-1") as unheld:
        assert not unheld
    second.release()


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
