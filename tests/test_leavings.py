"""The tests' own look at what servers leave behind."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from intaglio.serving.workspace import SHARED_MEMORY, Workspace

from .leavings import PREFIX, OwnServers


def test_what_is_left_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a server whose folder is gone, too, and nothing of a server that others run."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    servers = OwnServers(tmp_path)
    foreign = SHARED_MEMORY / f"{PREFIX}{uuid.uuid4().hex[:8]}_1"
    workspace = Workspace.create()
    segment = SHARED_MEMORY / f"{workspace.shared_memory_prefix}1"
    try:
        for path in (foreign, segment):
            path.touch()
        assert servers.left() == {str(workspace.folder), str(segment)}
        words = [sys.executable, "-c", "input()", f"{workspace.folder}/models"]
        with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
            assert f"{process.pid} " in " ".join(servers.left())
            process.communicate(b"\n")
        workspace.remove()
        assert servers.left() == set()
        segment.touch()
        assert servers.left() == {str(segment)}
    finally:
        segment.unlink(missing_ok=True)
        foreign.unlink(missing_ok=True)
        servers.close()
