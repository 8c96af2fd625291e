"""Certificates for tests: an authority, and what it signed."""

from __future__ import annotations

import datetime
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

__all__ = ["Certificates", "certificates", "shifted"]


@dataclass(frozen=True)
class Certificates:
    """Files in PEM, in a folder of their own."""

    folder: Path

    def file(self, name: str) -> Path:
        """`.pem` and `.key` of `ca`, of `server` and `client`, which it has signed, of `foreign`, another
        authority, and of its client `stranger`.
        """
        return self.folder / name

    def read(self, name: str) -> bytes:
        return self.file(name).read_bytes()


def certificates(folder: Path) -> Certificates:
    """An authority, what it signed for a server at 127.0.0.1, which may be of `intaglio-servers`, and for a
    client; another one, its client.
    """
    made = Certificates(folder)
    _authority(made, "ca")
    _authority(made, "foreign")
    _signed(made, "server", "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:intaglio-servers")
    _signed(made, "client", "extendedKeyUsage=clientAuth")
    _signed(made, "stranger", "extendedKeyUsage=clientAuth", by="foreign")
    return made


def shifted(made: Certificates, name: str, *, days: int) -> Path:
    """The certificate `name` with its time moved by `days`, signed anew; its key stays the same."""
    old = x509.load_pem_x509_certificate(made.read(f"{name}.pem"))
    issuer = name if old.issuer == old.subject else "ca"
    key = serialization.load_pem_private_key(made.read(f"{issuer}.key"), password=None)
    span = datetime.timedelta(days=days)
    builder = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), old.serial_number + 1)
    builder = builder.not_valid_before(old.not_valid_before_utc + span)
    builder = builder.not_valid_after(old.not_valid_after_utc + span)
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    when = "later" if days > 0 else "earlier"
    path = made.file(f"{name}-{when}.pem")
    new = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]
    path.write_bytes(new.public_bytes(serialization.Encoding.PEM))
    return path


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _authority(made: Certificates, name: str) -> None:
    files = ("-keyout", made.file(f"{name}.key"), "-out", made.file(f"{name}.pem"))
    _openssl("req", "-x509", *_KEY, *files, "-subj", f"/CN={name}", "-days", "2")


def _signed(made: Certificates, name: str, extension: str, *, by: str = "ca") -> None:
    request, extensions = made.file(f"{name}.csr"), made.file(f"{name}.ext")
    extensions.write_text(extension)
    _openssl("req", *_KEY, "-keyout", made.file(f"{name}.key"), "-out", request, "-subj", f"/CN={name}")
    authority = ("-CA", made.file(f"{by}.pem"), "-CAkey", made.file(f"{by}.key"), "-CAcreateserial")
    out = ("-out", made.file(f"{name}.pem"), "-days", "2", "-extfile", extensions)
    _openssl("x509", "-req", "-in", request, *authority, *out)
