"""The client without a server."""

from __future__ import annotations

import http.server
import threading

import pytest

from intaglio.errors import InvalidRequest, Unavailable
from intaglio_client import Client


def test_nobody_there() -> None:
    with Client("127.0.0.1:9", deadline=5) as client:
        assert not client.is_ready()
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9.*intaglio serve"):
            client.generate("a fox")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8001", "grpc://127.0.0.1:8001"])
def test_a_url_with_a_scheme_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^url: '{url}'; allowed: host:port of gRPC, such as"):
        Client(url)


@pytest.mark.parametrize("url", ["a..b:8001", ":8001", "localhost", "a:http", "a:70000", "a" * 64 + ":1"])
def test_what_is_not_host_and_port_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^url: .*; allowed: host:port of gRPC, such as"):
        Client(url)


TRITON = b'{"name":"triton","version":"2.51.0","extensions":["classification"]}'


@pytest.mark.parametrize(
    ("status", "answer", "kind", "says"),
    [
        (200, TRITON, InvalidRequest, r"^url: .* answers in HTTP; allowed: the port of gRPC, 8001"),
        (503, b"no healthy upstream", Unavailable, r"is the server running .* it answers in HTTP: is it the"),
        (502, b'{"error": "away"}', Unavailable, r"is the server running .* it answers in HTTP: is it the"),
    ],
    ids=["Triton", "Envoy", "another proxy"],
)
def test_a_port_that_speaks_http_is_named(
    status: int, answer: bytes, kind: type[Exception], says: str
) -> None:
    """A proxy whose server is away may be asked again; Triton's own port of HTTP never helps."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with (
            Client(f"127.0.0.1:{server.server_port}", deadline=10) as client,
            pytest.raises(kind, match=says),
        ):
            client.generate("a fox")
    finally:
        server.shutdown()
        server.server_close()
