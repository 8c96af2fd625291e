"""Requests to Triton's HTTP port, answered by a small server."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intaglio.errors import Unavailable
from intaglio.serving.administration import Administration

SECRET = "5ec"
INDEX = [
    {"name": "diffuse", "version": "1", "state": "UNAVAILABLE"},
    {"name": "diffuse", "version": "2", "state": "READY"},
    {"name": "diffuse"},
]


class Answers(BaseHTTPRequestHandler):
    """Triton's answers: it is ready, the model `broken` cannot be loaded."""

    def do_GET(self) -> None:
        if self.path == "/v2":
            self._send(200, b'{"name": "ours", "version": "2.51.0"}')
        else:
            self._send(200, b"")

    def do_POST(self) -> None:
        if self.headers["intaglio-admin"] != SECRET:
            self._send(403, b"restricted")
        elif self.path.endswith("/index"):
            self._send(200, json.dumps(INDEX).encode())
        elif "broken" in self.path:
            said = {"error": "failed to load 'broken', TritonModelException: no plan for sm89"}
            self._send(400, json.dumps(said).encode())
        else:
            self._send(200, b"")

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@contextmanager
def answering(*parts: bytes, pause: float = 0.0) -> Iterator[str]:
    """The URL of a program that sends `parts` to everybody, with a pause after each, and hangs up."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                caller, _ = listening.accept()
            except OSError:
                return
            with caller, contextlib.suppress(OSError):
                caller.recv(1 << 16)
                for part in parts:
                    caller.sendall(part)
                    time.sleep(pause)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def administration(url: str, *, secret: str = SECRET) -> Administration:
    return Administration(url, name="ours", secret=secret, load_seconds=5.0)


def test_health(url: str) -> None:
    assert administration(url).is_live()
    assert administration(url).is_ready()
    assert not administration("127.0.0.1:9").is_live()


def test_another_server_that_is_ready_is_not_this_one(url: str) -> None:
    other = Administration(url, name="theirs", secret=SECRET, load_seconds=5.0)
    assert not other.is_ready()


def test_a_version_that_is_unavailable_is_not_loaded(url: str) -> None:
    asked = administration(url)
    assert asked.has_loaded(2, ["diffuse"])
    assert not asked.has_loaded(1, ["diffuse"])
    assert not asked.has_loaded(2, ["preprocess"])


def test_other_versions_that_are_loaded(url: str) -> None:
    asked = administration(url)
    assert asked.has_loaded_others(3, ["diffuse"])
    assert not asked.has_loaded_others(2, ["diffuse"]), "version 1 is unloaded"
    assert not asked.has_loaded_others(3, ["sdxl"])


def test_models_are_unloaded_with_the_secret(url: str) -> None:
    administration(url).unload_model("sdxl", until=time.monotonic() + 5)
    with pytest.raises(Unavailable, match="no plan for sm89"):
        administration(url).unload_model("broken", until=time.monotonic() + 5)


def test_nobody_waits_longer_than_is_left() -> None:
    started = time.monotonic()
    with answering(b"", pause=30.0) as url:
        for left in (0.3, -5.0):
            with pytest.raises(Unavailable):
                administration(url).load_model("diffuse", until=time.monotonic() + left)
    assert time.monotonic() - started < 10


def test_what_the_model_raised_is_the_reason(url: str) -> None:
    administration(url).load_model("diffuse")
    with pytest.raises(Unavailable, match=r"^no plan for sm89$"):
        administration(url).load_model("broken")


def test_refusals_and_silence(url: str) -> None:
    with pytest.raises(Unavailable, match=r"^restricted$"):
        administration(url, secret="guessed").load_model("diffuse")
    with pytest.raises(Unavailable, match="Triton does not answer"):
        administration("127.0.0.1:9").load_model("diffuse")


ANSWERED = b"HTTP/1.1 200 OK\r\n"
FOREIGN = [
    b"",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\0\xff" * 40,
    b"HTTP/1.1 abc\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n[",
    ANSWERED + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ANSWERED + b"X: y\r\n" * 500,
    ANSWERED + b"x" * 100_000,
    ANSWERED + b"\r\n[{}]",
    ANSWERED + b"\r\n[3]",
    ANSWERED + b"\r\n{}",
    ANSWERED + b'\r\n{"name": "theirs"}',
    ANSWERED + b"\r\nnull",
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\n\r\n",
    b"HTTP/1.1 403 Forbidden\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 10,
]


@pytest.mark.parametrize("answer", FOREIGN)
def test_whatever_another_program_answers(answer: bytes) -> None:
    with answering(answer) as url:
        asked = administration(url)
        assert asked.is_live() in (True, False)
        assert not asked.is_ready()
        if not answer.endswith(b"\r\n{}"):  # a list without models
            with pytest.raises(Unavailable):
                asked.has_loaded(1, ["diffuse"])
        if not answer.startswith(ANSWERED):
            with pytest.raises(Unavailable):
                asked.load_model("diffuse")


@settings(max_examples=60, deadline=None)
@given(head=st.sampled_from([b"", b"HTTP/1.1 ", ANSWERED, ANSWERED + b"\r\n"]), rest=st.binary(max_size=200))
def test_no_answer_raises_anything_else(head: bytes, rest: bytes) -> None:
    with answering(head + rest) as url:
        asked = Administration(url, name="ours", secret=SECRET, load_seconds=1.0)
        assert asked.is_live() in (True, False)
        assert not asked.is_ready()
        for ask in (lambda: asked.has_loaded(1, ["diffuse"]), lambda: asked.load_model("diffuse")):
            with contextlib.suppress(Unavailable):
                ask()


def test_an_answer_that_never_ends_is_cut() -> None:
    """A byte now and then keeps a socket's timeout from ending."""
    started = time.monotonic()
    with answering(*[b"H"] * 200, pause=0.1) as url:
        assert not administration(url).is_ready()
    with answering(b"", pause=30.0) as url:
        assert not administration(url).is_ready()
    assert time.monotonic() - started < 10
