"""TLS and headers, with a server in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from intaglio.errors import InvalidRequest
from intaglio_client import NO_RETRIES, Client, Tls, Unavailable

from ..certificates import Certificates, certificates
from ..fake_server import FakeServer, fake_server, picture


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def mutual(made: Certificates) -> Iterator[FakeServer]:
    """A server that shows a certificate and asks for one."""
    credentials = grpc.ssl_server_credentials(
        [(made.read("server.key"), made.read("server.pem"))],
        root_certificates=made.read("ca.pem"),
        require_client_auth=True,
    )
    with fake_server(picture, credentials=credentials) as server:
        yield server


def ask(url: str, tls: Tls | None) -> bytes:
    with Client(url, tls=tls, retries=NO_RETRIES, deadline=10) as client:
        return client.generate("a fox").data


def test_both_sides_show_their_certificates(mutual: FakeServer, made: Certificates) -> None:
    own = Tls(ca=made.file("ca.pem"), certificate=made.file("client.pem"), key=made.file("client.key"))
    assert ask(mutual.url, own) == b"image 0"


def test_who_shows_none_or_a_foreign_one_is_refused(mutual: FakeServer, made: Certificates) -> None:
    foreign = Tls(
        ca=made.file("ca.pem"), certificate=made.file("stranger.pem"), key=made.file("stranger.key")
    )
    for tls in (Tls(ca=made.file("ca.pem")), foreign, None):
        with pytest.raises(Unavailable, match=r"does it want TLS \(--tls-ca, --tls-cert, --tls-key\)\?$"):
            ask(mutual.url, tls)
    assert not mutual.requests


def test_a_server_that_the_authority_did_not_sign_is_refused(mutual: FakeServer, made: Certificates) -> None:
    wrong = Tls(ca=made.file("foreign.pem"), certificate=made.file("client.pem"), key=made.file("client.key"))
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        ask(mutual.url, wrong)


def test_the_name_in_the_certificate_counts(made: Certificates, mutual: FakeServer) -> None:
    own = {"certificate": made.file("client.pem"), "key": made.file("client.key")}
    with pytest.raises(Unavailable):
        ask(mutual.url, Tls(ca=made.file("ca.pem"), server_name="elsewhere", **own))
    assert ask(mutual.url, Tls(ca=made.file("ca.pem"), server_name="localhost", **own)) == b"image 0"


def test_files_that_are_none_are_named_before_anything_is_sent(made: Certificates, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    for tls, says in (
        (Tls(ca=tmp_path / "none"), r"^tls\.ca: .*none: No such file"),
        (Tls(ca=tmp_path / "text"), r"^tls\.ca: .*text is no PEM file"),
        (Tls(certificate=made.file("client.pem")), r"^tls\.key: missing; allowed: a certificate and its key"),
        (Tls(key=made.file("client.key")), r"^tls\.certificate: missing"),
    ):
        with pytest.raises(InvalidRequest, match=says):
            Client("127.0.0.1:9", tls=tls)
