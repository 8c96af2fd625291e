"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from intaglio.whole_files import remove_leavings, write_new, write_whole

WRITER = """
import os, sys
from pathlib import Path
from intaglio import whole_files

def replace(source, target):
    print(source, flush=True)
    input()
    os.rename(source, target)

whole_files.os = type("Os", (), {**vars(os), "replace": staticmethod(replace)})
whole_files.write_whole(Path(sys.argv[1]), b"new")
"""
"""Writes a file, and waits before it renames it."""


def test_a_new_file_replaces_none(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "x"
    write_new(path, b"first")
    with pytest.raises(FileExistsError, match="x"):
        write_new(path, b"second")
    assert path.read_bytes() == b"first"
    write_whole(path, b"third")
    assert path.read_bytes() == b"third"
    assert [one.name for one in path.parent.iterdir()] == ["x"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_kept(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a file system without hard links."""
    path = tmp_path / "x"
    link = os.link

    def late(source: str, target: Path) -> None:
        target.write_bytes(b"of another program")
        if not links:
            raise PermissionError("no links here")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(FileExistsError):
        write_new(path, b"ours")
    assert path.read_bytes() == b"of another program"
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: str, target: Path) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refused)
    write_new(tmp_path / "x", b"ours")
    assert (tmp_path / "x").read_bytes() == b"ours"
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """A writer that lives keeps its file, and goes on."""
    kept = [tmp_path / name for name in ("x.tmp", "notes.txt", "a.long_name.tmp.txt")]
    for path in kept:
        path.write_bytes(b"of a user")
    (tmp_path / "deeper").mkdir()
    path = tmp_path / "deeper" / "manifest.json"
    command = [sys.executable, "-c", WRITER, str(path)]

    def started() -> tuple[subprocess.Popen[str], Path]:
        writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        return writer, Path(writer.stdout.readline().strip())

    (killed, dead), (writer, alive) = started(), started()
    with killed, writer:
        killed.kill()
        killed.wait()
        assert {dead, alive} <= set(path.parent.iterdir())
        assert remove_leavings(tmp_path) == 1
        assert list(path.parent.iterdir()) == [alive]
        writer.communicate("\n", timeout=30)
        assert writer.returncode == 0
    assert path.read_bytes() == b"new"
    assert remove_leavings(tmp_path) == 0
    assert all(one.read_bytes() == b"of a user" for one in kept)


def test_a_file_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two moments it looks like a leaving."""
    made: list[str] = []
    mkstemp: Callable[..., tuple[int, str]] = tempfile.mkstemp

    def swept(**keys: object) -> tuple[int, str]:
        handle, name = mkstemp(**keys)
        if not made:
            assert remove_leavings(tmp_path) == 1
        made.append(name)
        return handle, name

    monkeypatch.setattr(tempfile, "mkstemp", swept)
    write_whole(tmp_path / "x", b"whole")
    assert len(made) == 2
    assert (tmp_path / "x").read_bytes() == b"whole"
    assert [one.name for one in tmp_path.iterdir()] == ["x"]
