"""Files that are there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from intaglio.whole_files import remove_leavings, temporary_files_of, write_new, write_whole

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
    foreign = (
        "x.tmp",
        "notes.txt",
        "partial_download.tmp",
        "model.safetensors.tmp",
        "a.intaglio-12345678.txt",
    )
    kept = [tmp_path / name for name in foreign]
    for path in kept:
        path.write_bytes(b"of a user")
        make_old(path)
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
        assert {dead, alive} == set(path.parent.iterdir())
        assert remove_leavings(tmp_path) == 0, "it may be of a living writer"
        make_old(dead)
        assert remove_leavings(tmp_path) == 1
        assert list(path.parent.iterdir()) == [alive]
        writer.communicate("\n", timeout=30)
        assert writer.returncode == 0
    assert path.read_bytes() == b"new"
    make_old(path)
    assert remove_leavings(tmp_path) == 0
    assert all(one.read_bytes() == b"of a user" for one in kept)


def make_old(path: Path) -> None:
    """As if `path` had last changed a little more than an hour ago."""
    moment = time.time() - 3660
    os.utime(path, (moment, moment))


def test_a_writer_that_slept_too_long_says_so_and_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", WRITER, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as writer:
        assert writer.stdout is not None
        make_old(Path(writer.stdout.readline().strip()))
        assert remove_leavings(tmp_path) == 1
        _, said = writer.communicate("\n", timeout=30)
        assert writer.returncode == 1
    assert "FileNotFoundError" in said
    assert path.read_bytes() == b"old"


def test_the_temporary_files_of_one_file(tmp_path: Path) -> None:
    names = ("x.intaglio-a_345678.tmp", "x2.intaglio-a_345678.tmp", "x.intaglio-short.tmp", "x.tmp", "x")
    for name in names:
        (tmp_path / name).touch()
    assert temporary_files_of(tmp_path / "x") == [tmp_path / names[0]]
    assert temporary_files_of(tmp_path / "missing" / "x") == []


def test_nothing_keeps_a_file_open_while_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows and some shared folders of virtual machines refuse to rename an open file."""
    replace = os.replace
    opened: list[str] = []

    def watched(source: str, target: Path) -> None:
        for descriptor in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                opened.append(os.readlink(descriptor))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    write_whole(tmp_path / "x", b"whole")
    assert opened
    assert not [one for one in opened if one.startswith(str(tmp_path))]
