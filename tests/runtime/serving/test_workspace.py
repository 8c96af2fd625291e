"""What one server owns outside its processes."""

from __future__ import annotations

import fcntl
import os

import pytest

from intaglio.serving.workspace import Workspace, http_urls, sweep, workspace_folders


def test_the_private_folder_is_locked_against_tidying(workspace: Workspace) -> None:
    """As systemd-tmpfiles does before it looks for old files in a folder."""
    descriptor = os.open(workspace.folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def test_a_living_owner_keeps_its_folder(workspace: Workspace) -> None:
    assert sweep() == []
    assert workspace_folders() == [workspace.folder]


def test_what_a_killed_owner_left_is_swept() -> None:
    left = Workspace.create()
    left._lock.close()  # as the kernel does when a process is killed
    assert sweep() == [left.folder.name]
    assert not left.folder.exists()


def test_a_server_that_was_killed_is_not_told_while_others_ask() -> None:
    """Nor does asking make the lock again that a sweep has just removed."""
    left = Workspace.create()
    left.tell_http("127.0.0.1:1")
    assert http_urls() == ["127.0.0.1:1"]
    left._lock.close()
    with (left.folder / "owner.lock").open("rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)  # as another `http_urls` at this moment
        assert http_urls() == []
    assert sweep() == [left.folder.name]


def test_a_lock_that_was_removed_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Workspace.create()
    (gone.folder / "owner.lock").unlink()
    monkeypatch.setattr("intaglio.serving.workspace.workspace_folders", lambda: [gone.folder])  # seen before
    assert http_urls() == []
    assert sweep() == []
    assert not (gone.folder / "owner.lock").exists()
    gone.remove()
