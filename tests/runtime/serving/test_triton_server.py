"""A server before it is started; tests/serving starts a real one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from intaglio.errors import Unavailable
from intaglio.serving.arguments import TritonSettings
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.installation import TritonInstallation
from intaglio.serving.triton_server import Restarts, TritonServer
from intaglio.serving.workspace import Workspace


def test_delays_double_up_to_the_longest() -> None:
    restarts = Restarts(first_delay=1.0, longest_delay=5.0)
    assert [restarts.delay(earlier) for earlier in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_what_only_a_running_server_has(tmp_path: Path) -> None:
    settings = TritonSettings(repository=tmp_path, endpoints=Endpoints(), log=tmp_path / "log")
    server = TritonServer(settings)
    for name in ("process", "workspace"):
        with pytest.raises(Unavailable, match="Triton is not running"):
            getattr(server, name)
    server.request_stop()
    assert server.stopping
    server.close()


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("where", ["tell_http", "prepare"])
def test_a_full_disk_fails_a_restart_and_not_the_server(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, where: str, named: bool
) -> None:
    """`supervise` counts it, and tries again."""
    settings = TritonSettings(repository=tmp_path, endpoints=Endpoints(), log=tmp_path / "log")
    server = TritonServer(settings)
    server._workspace, server._installation = workspace, TritonInstallation(tmp_path / "none")
    place = workspace.folder / "http" if named else workspace.folder

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(place) if named else None)

    monkeypatch.setattr(server if where == "prepare" else workspace, where, full)
    assert server._start_again() == f"Triton cannot be started: {place}: the disk is full"
