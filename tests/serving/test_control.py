"""The socket through which a running server is asked to reload: nothing that a caller or the kernel does may
end it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from intaglio.cli import main
from intaglio.contract.config import load_deployment
from intaglio.errors import Unavailable
from intaglio.serving import control as controlling
from intaglio.serving.control import Control, ask_to_reload, controlled_servers
from intaglio.serving.server import Server
from intaglio.serving.workspace import Workspace

PLATE = "{base: [{folder: base}], profiles: {sizes: [[64, 64]]}, build: build}"


class FailingSocket:
    """A listening socket whose first `accept` fails."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self._failures = [
            OSError(errno.EMFILE, "Too many open files"),
            OSError(errno.ECONNABORTED, "Software caused connection abort"),
        ]

    def accept(self) -> Any:
        if self._failures:
            raise self._failures.pop()
        return self._real.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    owned = Workspace.create()
    yield owned
    owned.remove()


def test_the_private_folder_is_locked_against_tidying(workspace: Workspace) -> None:
    """As systemd-tmpfiles does before it looks for old files in a folder."""
    descriptor = os.open(workspace.folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def test_a_failed_accept_ends_nothing(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = socket.socket
    monkeypatch.setattr(controlling, "_RETRY_SECONDS", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(controlling.socket, "socket", lambda *kind: FailingSocket(real(*kind)))
        control = Control(workspace.folder, tmp_path, lambda report: "reloaded")
    try:
        assert ask_to_reload(workspace.folder, report=print) == "reloaded"
    finally:
        control.close()
    assert [record.getMessage().partition("] ")[2] for record in caplog.records] == [
        "Software caused connection abort", "Too many open files",
    ]  # fmt: skip


def test_who_says_nothing_is_not_answered(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(controlling, "_HEARD_SECONDS", 0.05)
    control = Control(workspace.folder, tmp_path, lambda report: "reloaded")
    try:
        with caplog.at_level(logging.DEBUG), controlling._connected(workspace.folder) as silent:
            silent.settimeout(5)
            assert silent.recv(1) == b""
        assert not caplog.records
        assert ask_to_reload(workspace.folder, report=print) == "reloaded"
    finally:
        control.close()
    with pytest.raises(Unavailable, match="does not answer"):
        ask_to_reload(workspace.folder, report=print)


def test_a_server_that_cannot_load_says_so(tmp_path: Path) -> None:
    config = tmp_path / "plate.yaml"
    config.write_text(PLATE)
    server = Server(load_deployment(config))
    server.settings = replace(server.settings, reloadable=False)
    with pytest.raises(Unavailable, match="does not let Triton's secret be hidden"):
        server.reload()


def test_every_server_of_a_deployment_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: Any) -> str:
        raise Unavailable("no room for both")

    config = tmp_path / "plate.yaml"
    config.write_text(PLATE)
    build = load_deployment(config).build_folder
    servers = sorted((Workspace.create() for _ in range(2)), key=lambda workspace: workspace.folder)
    controls = [
        Control(server.folder, build, answer)
        for server, answer in zip(servers, (refuse, lambda _: "reloaded"), strict=True)
    ]
    try:
        assert controlled_servers(build) == [server.folder for server in servers]
        assert main(["reload", str(config)]) == 2
        said = capsys.readouterr()
        assert said.err.strip() == f"intaglio reload: {servers[0].folder.name}: no room for both"
        assert said.out.strip() == f"{servers[1].folder.name}: reloaded"
    finally:
        for control, server in zip(controls, servers, strict=True):
            control.close()
            server.remove()
