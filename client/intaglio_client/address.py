"""Where a server is asked: host:port of gRPC, and nothing else that looks like it."""

from __future__ import annotations

import contextlib
import http.client
from typing import Final

from intaglio.errors import InvalidRequest

__all__ = ["DEFAULT_URL", "URL_VARIABLE", "check_url", "http_refused"]

DEFAULT_URL: Final = "127.0.0.1:8001"
URL_VARIABLE: Final = "INTAGLIO_URL"
"""The variable of the environment that stands in for `--url`."""
_PROBE_SECONDS: Final = 2.0


def check_url(url: str) -> str:
    """`url` itself; InvalidRequest where it has a scheme."""
    if "://" in url:
        raise InvalidRequest("url", f"{url!r}", allowed=f"host:port of gRPC, such as {DEFAULT_URL}")
    return url


def http_refused(url: str) -> InvalidRequest | None:
    """The refusal of a port that speaks HTTP, as Triton's other port does; None where it does not.

    gRPC itself says of such a port only that the connection closed, so this asks once in HTTP.
    """
    try:
        with contextlib.closing(http.client.HTTPConnection(url, timeout=_PROBE_SECONDS)) as connection:
            connection.request("GET", "/v2/health/live")
            connection.getresponse()
    except (OSError, http.client.HTTPException):
        return None
    return InvalidRequest(
        "url", f"{url} answers in HTTP", allowed="the port of gRPC, 8001 unless it was changed"
    )
