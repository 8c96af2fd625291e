"""Files of TLS are tried before Triton gets them."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from intaglio.errors import ConfigError
from intaglio.serving.server_tls import ServerTls, tls_of_options

from ...client.certificates import Certificates, certificates, shifted


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls(made: Certificates) -> ServerTls:
    return ServerTls(certificate=made.file("server.pem"), key=made.file("server.key"), ca=made.file("ca.pem"))


def test_the_commands_of_the_page_make_what_a_server_needs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/operating.md").read_text()
    commands = page[page.index("openssl req -x509") :].partition("intaglio serve")[0]
    subprocess.run(["bash", "-euc", commands], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    for who in ("server", "client"):
        made = ServerTls(
            certificate=tmp_path / f"{who}.pem", key=tmp_path / f"{who}.key", ca=tmp_path / "ca.pem"
        )
        assert made.check(private=True).warning is None


def test_what_expires_soon_is_said(tls: ServerTls, made: Certificates) -> None:
    """The certificates of the tests hold for two days."""
    soon = tls.check(private=True).warning
    assert soon is not None
    assert "expires in 2 days; replace it and restart `intaglio serve`" in soon
    lasting = made.file("lasting.pem")
    key = ("-newkey", "rsa:2048", "-nodes", "-keyout", made.file("lasting.key"))
    words = ("openssl", "req", "-x509", *key, "-days", "90", "-subj", "/CN=x", "-out", lasting)
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=60)
    alone = ServerTls(certificate=lasting, key=made.file("lasting.key"))
    assert alone.check(private=True).warning is None
    assert replace(alone, ca=lasting).check(private=True).warning is None
    assert "--tls-ca" in str(replace(alone, ca=made.file("ca.pem")).check(private=True).warning)


def test_what_has_expired_or_is_not_valid_yet_is_refused(tls: ServerTls, made: Certificates) -> None:
    for days, says in ((-5, "certificate has expired"), (5, "certificate is not yet valid")):
        wrong = shifted(made, "server", days=days)
        with pytest.raises(ConfigError, match=rf"^--tls-cert {wrong}: {says}; your authority makes one, or"):
            replace(tls, certificate=wrong).check(private=True)
        authority = shifted(made, "ca", days=days)
        with pytest.raises(ConfigError, match=r"^--tls-ca: every certificate in .* has expired or does not"):
            replace(tls, ca=authority).check(private=True)


def test_files_that_serve_nobody(tls: ServerTls, made: Certificates, tmp_path: Path) -> None:
    text, missing = tmp_path / "text.pem", tmp_path / "none.pem"
    text.write_text("no certificate")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    locked = tmp_path / "locked.key"
    words = ("openssl", "ec", "-in", made.file("server.key"), "-out", locked, "-aes128", "-passout", "pass:x")
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=60)
    for wrong, says in (
        (
            replace(tls, certificate=missing),
            r"^--tls-cert .*none\.pem: No such file or directory; your authority",
        ),
        (replace(tls, key=missing), r"^--tls-key .*none\.pem: No such file"),
        (replace(tls, ca=missing), r"^--tls-ca .*none\.pem: No such file"),
        (replace(tls, certificate=text), r"^--tls-cert: .*text\.pem is no PEM file"),
        (replace(tls, ca=broken), r"^--tls-ca .*broken\.pem: "),
        (replace(tls, certificate=broken), r"^--tls-cert .*both must be PEM"),
        (
            replace(tls, key=made.file("client.key")),
            r"^--tls-key: .*client\.key is not the key of .*server\.pem",
        ),
        (replace(tls, key=locked), r"^--tls-key: the key has a password"),
        (replace(tls, ca=made.file("server.pem")), "has no certificate of an authority"),
        (
            replace(tls, certificate=made.file("client.pem"), key=made.file("client.key")),
            "unsuitable certificate purpose",
        ),
    ):
        with pytest.raises(ConfigError, match=says):
            wrong.check(private=False)


@pytest.mark.parametrize(
    ("key", "served"),
    [
        (("ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"), True),
        (("rsa:2048",), True),
        (("ec", "-pkeyopt", "ec_paramgen_curve:secp521r1"), False),
        (("ed25519",), False),
        (("rsa-pss",), False),
    ],
)
def test_a_key_that_grpc_does_not_take_is_refused(tmp_path: Path, key: tuple[str, ...], served: bool) -> None:
    """OpenSSL takes all of them. So a server of gRPC, which Triton's is, says which are right."""
    certificate, private = tmp_path / "server.pem", tmp_path / "server.key"
    words = ("openssl", "req", "-x509", "-nodes", "-newkey", *key, "-days", "90", "-subj", "/CN=localhost")
    names = ("-addext", "subjectAltName=DNS:localhost", "-keyout", private, "-out", certificate)
    subprocess.run([*words, *map(str, names)], check=True, capture_output=True, timeout=60)
    assert grpc_serves(certificate.read_bytes(), private.read_bytes()) is served
    tls = ServerTls(certificate=certificate, key=private)
    if served:
        assert tls.check(private=True).warning is None
    else:
        with pytest.raises(ConfigError, match=r"gRPC takes no such key; allowed: RSA, P-256, P-384"):
            tls.check(private=True)


def grpc_serves(certificate: bytes, key: bytes) -> bool:
    """Whether a client of gRPC reaches a server of gRPC with these files."""
    server = grpc.server(ThreadPoolExecutor(1))
    try:
        port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)]))
    except RuntimeError:
        return False
    server.start()
    with grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(certificate)) as channel:
        try:
            channel.unary_unary("/x/y")(b"", timeout=30)
        except grpc.RpcError as error:
            return error.code() == grpc.StatusCode.UNIMPLEMENTED
        finally:
            server.stop(None)
    return True


def test_a_key_that_everybody_may_read_is_refused_in_production(tls: ServerTls, tmp_path: Path) -> None:
    key = tmp_path / "server.key"
    key.write_bytes(tls.key.read_bytes())
    key.chmod(0o644)
    shown = replace(tls, key=key)
    shown.check(private=False)
    with pytest.raises(ConfigError, match=r"^--tls-key: every user may read .*; run: chmod 600"):
        shown.check(private=True)
    key.chmod(0o440)  # as Kubernetes mounts it, for a group
    shown.check(private=True)


def test_options_that_need_each_other(made: Certificates) -> None:
    assert tls_of_options(certificate=None, key=None, ca=None) is None
    file = made.file("server.pem")
    with pytest.raises(ConfigError, match=r"^--tls-key is missing"):
        tls_of_options(certificate=file, key=None, ca=None)
    for key, ca in ((file, None), (None, file)):
        with pytest.raises(ConfigError, match=r"^--tls-cert is missing"):
            tls_of_options(certificate=None, key=key, ca=ca)
