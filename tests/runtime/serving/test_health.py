"""The health check of the images, beside a server that answers what it is told."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from intaglio.serving.health import LIVE_PATH, PATH, main, problem_of
from intaglio.serving.workspace import Workspace


class Answering(http.server.BaseHTTPRequestHandler):
    """200 for liveness, and where `ready` for the path that the check must ask; else 400, as of Triton."""

    ready = True

    def do_GET(self) -> None:
        self.send_response(200 if self.path == LIVE_PATH or (self.ready and self.path == PATH) else 400)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_ready_model_is_healthy(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem_of(address) is None
    monkeypatch.setattr(Answering, "ready", False)
    assert problem_of(address) == f"{address}{PATH} answers 400; 200 would be ready"


def test_nobody_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert str(problem_of(address)).startswith(f"{address} does not answer: ")


def test_the_exit_code_is_the_answer(address: str) -> None:
    for place, code, said in ((address, 0, "ready"), ("127.0.0.1:1", 1, "does not answer")):
        command = [sys.executable, "-m", "intaglio.serving.health", place]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert said in done.stdout


def test_without_an_address_it_asks_the_server_that_runs(address: str, tmp_path: Path) -> None:
    """At its own port, whatever the configuration says; not one that was killed."""

    def health(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "intaglio.serving.health", *words]
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return done.returncode, done.stdout.strip()

    code, said = health()
    assert (code, said.partition(";")[0]) == (1, "running servers of this user: none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path))
        killed = tmp_path / "intaglio-serve-killed"
        killed.mkdir()
        (killed / "owner.lock").touch()
        (killed / "http").write_text("127.0.0.1:1")
        assert health()[0] == 1
        (killed / "owner.lock").unlink()
        first, second = Workspace.create(), Workspace.create()
        try:
            first.tell_http("127.0.0.1:1")
            first.tell_http(address)
            assert health() == (0, "ready")
            assert health("live") == (0, "live")
            second.tell_http("127.0.0.1:1")
            code, said = health()
            assert code == 1
            assert address in said
            assert said.endswith("; allowed: one, or its HOST:PORT as an argument")
            assert health(address) == (0, "ready")
        finally:
            first.remove()
            second.remove()


def test_a_server_that_stops_is_still_alive(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Answering, "ready", False)
    assert main([address]) == 1
    assert main([address, "live"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "live"
    assert main(["127.0.0.1:1", "live"]) == 1
