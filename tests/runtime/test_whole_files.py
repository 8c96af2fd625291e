"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from intaglio.whole_files import write_new, write_whole


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
