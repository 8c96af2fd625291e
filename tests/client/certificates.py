"""Certificates for tests: an authority, and what it signed."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Certificates", "certificates"]


@dataclass(frozen=True)
class Certificates:
    """Files in PEM, in a folder of their own."""

    folder: Path

    def file(self, name: str) -> Path:
        """`ca.pem`, and `.pem` and `.key` of `server`, `client` and `stranger`."""
        return self.folder / name

    def read(self, name: str) -> bytes:
        return self.file(name).read_bytes()


def certificates(folder: Path) -> Certificates:
    """An authority, what it signed for a server at 127.0.0.1 and for a client, and a stranger."""
    made = Certificates(folder)
    _authority(made, "ca")
    _authority(made, "stranger")
    _signed(made, "server", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    _signed(made, "client", "extendedKeyUsage=clientAuth")
    return made


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _authority(made: Certificates, name: str) -> None:
    files = ("-keyout", made.file(f"{name}.key"), "-out", made.file(f"{name}.pem"))
    _openssl("req", "-x509", *_KEY, *files, "-subj", f"/CN={name}", "-days", "2")


def _signed(made: Certificates, name: str, extension: str) -> None:
    request, extensions = made.file(f"{name}.csr"), made.file(f"{name}.ext")
    extensions.write_text(extension)
    _openssl("req", *_KEY, "-keyout", made.file(f"{name}.key"), "-out", request, "-subj", f"/CN={name}")
    authority = ("-CA", made.file("ca.pem"), "-CAkey", made.file("ca.key"), "-CAcreateserial")
    out = ("-out", made.file(f"{name}.pem"), "-days", "2", "-extfile", extensions)
    _openssl("x509", "-req", "-in", request, *authority, *out)
