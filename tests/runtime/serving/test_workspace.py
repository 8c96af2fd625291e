"""What one server owns outside its processes."""

from __future__ import annotations

import fcntl
import os

import pytest

from intaglio.serving.workspace import Workspace, sweep, workspace_folders


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
