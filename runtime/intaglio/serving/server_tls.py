"""TLS of gRPC at the server: the files that Triton is given, tried before it starts.

Triton reads them at its start, and starts with files that serve nobody: a certificate that has expired, a key
of another one. So one handshake is made here in memory, as a client would make it.
"""

from __future__ import annotations

import contextlib
import ssl
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from intaglio.errors import ConfigError

__all__ = ["HOW_TO_MAKE", "ServerTls", "Validity", "tls_of_options"]

HOW_TO_MAKE: Final = (
    "your authority makes one, or for a trial: openssl req -x509 -newkey ec -pkeyopt "
    "ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=HOST -addext subjectAltName=DNS:HOST "
    "-keyout server.key -out server.pem (docs/operating.md, Certificates)"
)
_KINDS: Final = {
    "RSA": bytes.fromhex("300d06092a864886f70d0101010500"),
    "P-256": bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107"),
    "P-384": bytes.fromhex("301006072a8648ce3d020106052b81040022"),
}
"""Keys whose signatures gRPC accepts, as a certificate names them (AlgorithmIdentifier, RFC 3279 and 5480).
OpenSSL, which shakes hands here, accepts others, too: with those Triton starts, and no client reaches it.
"""
_ROUNDS: Final = 10
"""Of messages in both directions; a handshake takes three."""
_DAY: Final = 86_400.0
_SOON_DAYS: Final = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """Until when the files hold, in seconds since the epoch."""

    certificate: float
    """The server's certificate."""
    first: float
    """The file that expires first."""
    name: str
    """Option and path of that file."""

    @property
    def warning(self) -> str | None:
        """What will be wrong soon or is wrong by now; None while all hold for longer."""
        days = (self.first - time.time()) / _DAY
        if days > _SOON_DAYS:
            return None
        if days < 0:
            return f"{self.name} has expired, and no client connects; replace it and restart `intaglio serve`"
        return f"{self.name} expires in {days:.0f} days; replace it and restart `intaglio serve`"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """Files in PEM. With `ca` clients have to show a certificate, too (mutual TLS)."""

    certificate: Path
    """The server's certificate and its chain."""
    key: Path
    """The private key of `certificate`."""
    ca: Path | None = None
    """Certificates of the authorities that may have signed the clients'."""

    @property
    def options(self) -> Mapping[str, object]:
        """The options of `tritonserver`. With mutual TLS Triton ignores `--grpc-use-ssl`."""
        files: dict[str, object] = {
            "--grpc-use-ssl": "true",
            "--grpc-server-cert": self.certificate.resolve(),
            "--grpc-server-key": self.key.resolve(),
        }
        if self.ca is not None:
            files |= {"--grpc-use-ssl-mutual": "true", "--grpc-root-cert": self.ca.resolve()}
        return files

    def check(self, *, private: bool) -> Validity:
        """Try the files; returns until when they hold. `private`: only their owner and its group may read
        the key.

        Raises:
            ConfigError: a file cannot be read or is no PEM, the key is not that of the certificate or is of
                a kind that gRPC refuses, or a certificate has expired or does not hold yet.
        """
        text = _text("--tls-cert", self.certificate)
        _text("--tls-key", self.key)
        serving = self._serving()
        _check_kind(text, self.certificate)
        if private and self.key.stat().st_mode & stat.S_IRWXO:
            raise ConfigError(f"--tls-key: every user may read {self.key}; run: chmod 600 {self.key}")
        own = _end_of_own(serving, text, self.certificate)
        ends = {f"--tls-cert {self.certificate}": own}
        if self.ca is not None:
            _text("--tls-ca", self.ca)
            ends[f"--tls-ca {self.ca}"] = _end_of_authorities(self.ca)
        name, first = min(ends.items(), key=lambda item: item[1])
        return Validity(certificate=own, first=first, name=name)

    def _serving(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # A password would be asked for at the terminal, which a server has not.
            context.load_cert_chain(self.certificate, self.key, password=_refused)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ConfigError(f"--tls-key: {self.key} is not the key of {self.certificate}") from error
            what = error.reason or str(error)
            raise ConfigError(
                f"--tls-cert {self.certificate}, --tls-key {self.key}: {what}; both must be PEM, the key "
                "without a password"
            ) from error
        return context


def tls_of_options(*, certificate: Path | None, key: Path | None, ca: Path | None) -> ServerTls | None:
    """What the options of `intaglio serve` ask for; None where there are none.

    Raises:
        ConfigError: one of them needs another one.
    """
    if certificate is None and key is None and ca is None:
        return None
    if certificate is None or key is None:
        missing = "--tls-key" if certificate else "--tls-cert"
        raise ConfigError(f"{missing} is missing: a server needs its certificate and the key; {HOW_TO_MAKE}")
    return ServerTls(certificate=certificate, key=key, ca=ca)


def _refused() -> str:
    raise ConfigError("--tls-key: the key has a password; Triton takes only keys without one")


def _text(option: str, path: Path) -> str:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}; {HOW_TO_MAKE}") from error
    if b"-----BEGIN " not in text:
        raise ConfigError(f"{option}: {path} is no PEM file; {HOW_TO_MAKE}")
    return text.decode("ascii", "replace")


def _check_kind(text: str, path: Path) -> None:
    certificate = ssl.PEM_cert_to_DER_cert(_first_certificate(text))
    if not any(kind in certificate for kind in _KINDS.values()):
        allowed = ", ".join(_KINDS)
        raise ConfigError(f"--tls-cert {path}: gRPC takes no such key; allowed: {allowed}; {HOW_TO_MAKE}")


def _end_of_own(serving: ssl.SSLContext, text: str, path: Path) -> float:
    """When the server's certificate expires, in seconds since the epoch.

    A client that trusts just this certificate shakes hands with `serving`.
    """
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    asking.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    asking.load_verify_locations(cadata=_first_certificate(text))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_ROUNDS):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                _shake_hands(side, path)
        if (shown := _shown(client)) is not None:
            return ssl.cert_time_to_seconds(str(shown["notAfter"]))
    raise ConfigError(f"--tls-cert: nobody can connect with {path}; {HOW_TO_MAKE}")


def _shake_hands(side: ssl.SSLObject, path: Path) -> None:
    try:
        side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(f"--tls-cert {path}: {error.verify_message}; {HOW_TO_MAKE}") from error
    except ssl.SSLWantReadError:
        raise
    except ssl.SSLError as error:
        raise ConfigError(f"--tls-cert {path}: {error.reason or error}; {HOW_TO_MAKE}") from error


def _shown(client: ssl.SSLObject) -> Mapping[str, Any] | None:
    """The server's certificate once the client accepts it."""
    with contextlib.suppress(ValueError):  # the handshake is not done yet
        return client.getpeercert() or None
    return None


def _first_certificate(text: str) -> str:
    """The leaf; the certificates after it are its chain."""
    end = "-----END CERTIFICATE-----"
    before, found, _ = text[text.find("-----BEGIN CERTIFICATE-----") :].partition(end)
    return before + found + "\n"


def _end_of_authorities(path: Path) -> float:
    """When the first certificate of `path` expires, in seconds since the epoch."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigError(
            f"--tls-ca {path}: {error.reason or error}; allowed: certificates in PEM"
        ) from error
    found = context.get_ca_certs()
    if not found:
        raise ConfigError(f"--tls-ca: {path} has no certificate of an authority (CA:TRUE)")
    spans = [
        (ssl.cert_time_to_seconds(str(one["notBefore"])), ssl.cert_time_to_seconds(str(one["notAfter"])))
        for one in found
    ]
    now = time.time()
    if not any(begin <= now < end for begin, end in spans):
        raise ConfigError(f"--tls-ca: every certificate in {path} has expired or does not hold yet")
    return max(end for _, end in spans)
