"""How `intaglio generate` connects: its options as settings of the client."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from intaglio.errors import InvalidRequest
from intaglio_client.asking import Settings
from intaglio_client.connections.tls import Tls

__all__ = ["settings_from_options", "tls_from_options"]


def settings_from_options(
    *,
    deadline: float,
    headers: Sequence[str] | None,
    ca: Path | None,
    certificate: Path | None,
    key: Path | None,
) -> Settings:
    """Settings of a client. Each option of TLS turns TLS on.

    Raises:
        InvalidRequest: a header is not `name: value`.
    """
    tls = tls_from_options(ca=ca, certificate=certificate, key=key)
    return Settings(deadline=deadline, headers=_headers(headers or ()), tls=tls)


def tls_from_options(*, ca: Path | None, certificate: Path | None, key: Path | None) -> Tls | None:
    """The files of TLS; None where no option was given, which is plain text.

    Raises:
        InvalidRequest: a file is wrong, or a certificate comes without its key.
    """
    if all(path is None for path in (ca, certificate, key)):
        return None
    tls = Tls(ca=ca, certificate=certificate, key=key)
    tls.credentials()  # so that a wrong file is named now
    return tls


def _headers(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon:
            # Not repeated: it may be a secret.
            raise InvalidRequest(
                "header", "no colon", allowed="name: value, such as authorization: Bearer ..."
            )
        found[name.strip()] = value.strip()
    return found
