"""Requests to Triton's HTTP port, answered by a small server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from intaglio.errors import Unavailable
from intaglio.serving.administration import Administration

SECRET = "5ec"
INDEX = [
    {"name": "diffuse", "version": "1", "state": "UNAVAILABLE"},
    {"name": "diffuse", "version": "2", "state": "READY"},
]


class Answers(BaseHTTPRequestHandler):
    """Triton's answers: everything is ready, the model `broken` cannot be loaded."""

    def do_GET(self) -> None:
        self._send(200 if self.path == "/v2/health/live" else 400, b"")

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


def administration(url: str, *, secret: str = SECRET) -> Administration:
    return Administration(url, secret=secret, load_seconds=5.0)


def test_health(url: str) -> None:
    assert administration(url).is_live()
    assert not administration(url).is_ready()
    assert not administration("127.0.0.1:9").is_live()


def test_a_version_that_is_unavailable_is_not_loaded(url: str) -> None:
    asked = administration(url)
    assert asked.has_loaded(2, ["diffuse"])
    assert not asked.has_loaded(1, ["diffuse"])
    assert not asked.has_loaded(2, ["preprocess"])


def test_what_the_model_raised_is_the_reason(url: str) -> None:
    administration(url).load_model("diffuse")
    with pytest.raises(Unavailable, match=r"^no plan for sm89$"):
        administration(url).load_model("broken")


def test_refusals_and_silence(url: str) -> None:
    with pytest.raises(Unavailable, match=r"^restricted$"):
        administration(url, secret="guessed").load_model("diffuse")
    with pytest.raises(Unavailable, match="Triton does not answer"):
        administration("127.0.0.1:9").load_model("diffuse")
