"""TLS of a connection: which servers are trusted, and the certificate that the client shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from intaglio.errors import InvalidRequest

__all__ = ["Tls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files in PEM. `Tls()` trusts the authorities that gRPC knows and shows no certificate."""

    ca: str | Path | None = None
    """Certificates of the authorities that may have signed the server's; None: those that gRPC knows."""
    certificate: str | Path | None = None
    """The client's certificate and its chain, for a server that asks for one (mutual TLS)."""
    key: str | Path | None = None
    """The private key of `certificate`."""
    server_name: str | None = None
    """The name in the server's certificate, where it is not the host of the address."""

    def credentials(self) -> grpc.ChannelCredentials:
        """What a channel of gRPC takes.

        Raises:
            InvalidRequest: a file cannot be read or is no PEM, or a certificate comes without its key.
        """
        if (self.certificate is None) != (self.key is None):
            missing = "key" if self.key is None else "certificate"
            raise InvalidRequest(f"tls.{missing}", "missing", allowed="a certificate and its key, or neither")
        return grpc.ssl_channel_credentials(
            root_certificates=_pem("ca", self.ca),
            private_key=_pem("key", self.key),
            certificate_chain=_pem("certificate", self.certificate),
        )


def _pem(field: str, path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        problem = f"{path}: {error.strerror}"
        raise InvalidRequest(f"tls.{field}", problem, allowed="a file in PEM that can be read") from error
    if b"-----BEGIN " not in data:  # gRPC would only say later that no connection could be made
        raise InvalidRequest(f"tls.{field}", f"{path} is no PEM file", allowed="a file in PEM")
    return data
