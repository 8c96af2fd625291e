"""The socket through which a running server is asked to reload: nothing that a caller or the kernel does may
end it.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import ConfigError, IntaglioError, Unavailable
from intaglio.serving import control as controlling
from intaglio.serving.change import LoadFailed, UnloadFailed
from intaglio.serving.control import Control, ReloadRefused, ask_to_reload
from intaglio.serving.workspace import Workspace


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


def test_a_failed_accept_ends_nothing(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = socket.socket
    monkeypatch.setattr(controlling, "_RETRY_SECONDS", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(controlling.socket, "socket", lambda *kind: FailingSocket(real(*kind)))
        control = Control(workspace.folder, tmp_path, lambda report: "reloaded", grpc_url="127.0.0.1:1")
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
    control = Control(workspace.folder, tmp_path, lambda report: "reloaded", grpc_url="127.0.0.1:1")
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


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Unavailable("reloading"), Unavailable),
        (ConfigError("no room"), ReloadRefused),
        (LoadFailed("a damaged engine"), ReloadRefused),
        (UnloadFailed("it still has requests"), ReloadRefused),
    ],
)
def test_a_caller_learns_whether_it_may_work_later(
    workspace: Workspace, tmp_path: Path, error: IntaglioError, told: type[IntaglioError]
) -> None:
    def refuse(_: object) -> str:
        raise error

    control = Control(workspace.folder, tmp_path, refuse, grpc_url="127.0.0.1:1")
    try:
        with pytest.raises(told, match=str(error)) as caught:
            ask_to_reload(workspace.folder, report=print)
    finally:
        control.close()
    assert type(caught.value) is told


def test_a_server_that_dies_within_its_answer_is_unavailable(workspace: Workspace) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(workspace.folder / "control"))
        listening.listen()

        def answer() -> None:
            caller, _ = listening.accept()
            with caller:
                caller.recv(100)
                caller.sendall(b'{"say": "loading"}\n{"sa')

        answering = threading.Thread(target=answer)
        answering.start()
        said: list[str] = []
        with pytest.raises(Unavailable, match="ended during the reload"):
            ask_to_reload(workspace.folder, report=said.append)
        answering.join()
    assert said == ["loading"]
