"""The health check of the images, beside a server that answers what it is told."""

from __future__ import annotations

import contextlib
import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from intaglio.contract.server import Server
from intaglio.serving import health as checking
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


@pytest.fixture
def silent() -> Iterator[str]:
    """It accepts connections, and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextlib.contextmanager
def running() -> Iterator[Workspace]:
    """What a running server owns."""
    owned = Workspace.create()
    try:
        yield owned
    finally:
        owned.remove()


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


def health(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code and what is said."""
    code = main(words)
    return code, capsys.readouterr().out.strip()


def test_without_an_address_it_asks_the_server_that_runs(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At its own port, whatever the configuration says; not one that was killed."""
    monkeypatch.setattr(checking, "_TRITON_ALONE", "127.0.0.1:1")
    killed = Workspace.create()
    killed.tell_http(address)
    killed._lock.close()  # as the kernel does when a process is killed
    assert health(capsys)[0] == 1
    with running() as server:
        server.tell_http("127.0.0.1:1")
        assert health(capsys)[0] == 1
        server.tell_http(address)
        assert health(capsys) == (0, "ready")
        assert health(capsys, "live") == (0, "live")
        assert health(capsys, "127.0.0.1:1")[0] == 1


def test_one_of_several_servers_is_enough(
    address: str, silent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A demo beside the server of a pod must not have the server killed, even where the demo hangs."""
    with running() as first, running() as second, running() as starting:
        first.tell_http("127.0.0.1:1")
        second.tell_http(silent)
        begun = time.monotonic()
        starting.tell_http(address)
        assert health(capsys) == (0, "ready")
        assert health(capsys, "live") == (0, "live")
        assert time.monotonic() - begun < checking._SECONDS, "it waits for none that hangs"
        monkeypatch.setattr(checking, "_SECONDS", 0.2)
        monkeypatch.setattr(Answering, "ready", False)
        code, said = health(capsys)
        assert code == 1
        for problem in ("127.0.0.1:1 does not", f"{silent} does not", f"{address}{PATH} answers 400"):
            assert problem in said


def test_without_a_server_of_ours_it_asks_a_triton_alone(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checking._TRITON_ALONE.endswith(f":{Server().http_port}"), "our default is Triton's"
    monkeypatch.setattr(checking, "_TRITON_ALONE", address)
    assert health(capsys) == (0, "ready")
    assert health(capsys, "live") == (0, "live")
    monkeypatch.setattr(Answering, "ready", False)
    assert health(capsys) == (1, f"{address}{PATH} answers 400; 200 would be ready")


def test_a_place_that_is_no_address_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = health(capsys, "127.0.0.1:http")
    assert code == 1
    assert said == "127.0.0.1:http: nonnumeric port: 'http'; allowed: HOST:PORT"


def test_a_server_that_stops_is_still_alive(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Answering, "ready", False)
    assert main([address]) == 1
    assert main([address, "live"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "live"
    assert main(["127.0.0.1:1", "live"]) == 1
