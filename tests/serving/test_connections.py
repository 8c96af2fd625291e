"""Connections that never finish what they begin, on the real server."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from intaglio.serving.health import problem_of
from intaglio.serving.server import Server
from intaglio_client import Client, Tls

from ..client.certificates import Certificates
from .stream_load import footprint

pytestmark = pytest.mark.slow

SHORT: Any = {"steps": 2, "seed": 5, "width": 256, "height": 192}
EACH = 100
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes of a client (RFC 9113, section 3.4)."""
SETTINGS = struct.pack(">I", 0)[1:] + b"\x04\x00" + struct.pack(">I", 0)
"""An empty SETTINGS frame: length, type, flags, stream."""
HEADERS = struct.pack(">I", 1000)[1:] + b"\x01\x04" + struct.pack(">I", 1) + b"\x82"
"""The beginning of a HEADERS frame that says that 1000 bytes follow."""
OVER_HTTP = (
    b"",
    b"POST /v2/models/sdxl/infer HTT",
    b"POST /v2/models/sdxl/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{",
)
OVER_GRPC = (b"", PREFACE[:10], PREFACE + SETTINGS, PREFACE + SETTINGS + HEADERS)


@contextlib.contextmanager
def unfinished(url: str, beginnings: tuple[bytes, ...]) -> Iterator[list[socket.socket]]:
    """EACH connections for each beginning, of which nothing more comes."""
    host, _, port = url.partition(":")
    with contextlib.ExitStack() as stack:
        found = []
        for beginning in beginnings * EACH:
            one = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            one.sendall(beginning)
            found.append(one)
        yield found


def files(server: Server) -> int:
    return footprint(server.process.pid).files


def test_connections_that_never_finish_disturb_nobody(server: Server, client: Client) -> None:
    """Each costs the server a file and a few KiB, and nothing else: pictures and probes are as before."""
    expected = client.generate("a person in a room", **SHORT).data
    before = footprint(server.process.pid)
    with (
        unfinished(server.grpc_url, OVER_GRPC) as slow,
        unfinished(server.http_url, OVER_HTTP) as others,
        Client(server.grpc_url, deadline=60) as newcomer,
    ):
        assert newcomer.generate("a person in a room", **SHORT).data == expected
        assert problem_of(server.http_url) is None
        among = footprint(server.process.pid)
        assert among.files <= before.files + len(slow) + len(others) + 4
        assert among.threads <= before.threads + 4
        assert among.mib < before.mib + 64
    until = time.monotonic() + 30
    while files(server) > before.files + 4:
        assert time.monotonic() < until, "their files are not given back"
        time.sleep(0.1)


def test_who_answers_no_ping_is_cut_off(secured: Server, made: Certificates, ours: Tls) -> None:
    """Also one that asks for nothing, and with a certificate. `secured` pings every second; usual are 30."""
    context = ssl.create_default_context(cafile=str(made.file("ca.pem")))
    context.load_cert_chain(made.file("client.pem"), made.file("client.key"))
    context.set_alpn_protocols(["h2"])
    host, _, port = secured.grpc_url.partition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as silent,
    ):
        silent.sendall(PREFACE + SETTINGS)
        until = time.monotonic() + 30
        while True:
            assert time.monotonic() < until, "the server keeps it"
            if not select.select([silent], [], [], 1)[0] and not silent.pending():
                continue
            try:
                if not silent.recv(1 << 16):
                    break
            except OSError:  # cut off without a word
                break
    with Client(secured.grpc_url, tls=ours, deadline=60) as client:
        assert client.is_ready(), "who answers is still served"
