"""Where a server is asked: host:port of gRPC, and nothing else that looks like it."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import Any, Final

from intaglio.errors import InvalidRequest, Unavailable

__all__ = ["DEFAULT_URL", "URL_VARIABLE", "check_url", "explained"]

DEFAULT_URL: Final = "127.0.0.1:8001"
URL_VARIABLE: Final = "INTAGLIO_URL"
"""The variable of the environment that stands in for `--url`."""
_PROBE_SECONDS: Final = 2.0
_MOST_BYTES: Final = 64 * 1024
"""What is read of an answer in HTTP; Triton's description of itself has about a kilobyte."""
_RIGHT_PORT: Final = "the port of gRPC, 8001 unless it was changed"


def check_url(url: str) -> str:
    """`url` itself; InvalidRequest where it is not host:port."""
    host, _, port = url.rpartition(":")
    try:
        is_host = bool(host) and "/" not in host and bool(host.strip("[]").encode("idna"))
    except UnicodeError:  # an empty part of the name, or one that is too long
        is_host = False
    if not is_host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidRequest("url", f"{url!r}", allowed=f"host:port of gRPC, such as {DEFAULT_URL}")
    return url


def explained(error: Unavailable, url: str) -> Unavailable | InvalidRequest:
    """`error`, or what explains it: gRPC itself says only that the connection closed. So this asks in HTTP.

    Triton's port of HTTP is the caller's mistake. Any other answer in HTTP may come from a proxy whose server
    is away for a moment, so the error stays one that may be tried again, and has a hint.
    """
    answer = _answer_in_http(url)
    if answer is None:
        return error
    if _is_triton(answer):
        return InvalidRequest("url", f"{url} answers in HTTP", allowed=_RIGHT_PORT)
    return Unavailable(f"{error}; it answers in HTTP: is it {_RIGHT_PORT}?")


def _answer_in_http(url: str) -> bytes | None:
    """What `url` says of itself in HTTP; None where it does not speak HTTP."""
    try:
        with contextlib.closing(http.client.HTTPConnection(url, timeout=_PROBE_SECONDS)) as connection:
            connection.request("GET", "/v2")
            return connection.getresponse().read(_MOST_BYTES)
    except (OSError, ValueError, http.client.HTTPException):
        return None


def _is_triton(answer: bytes) -> bool:
    """Whether `answer` is the metadata of a server in the KServe protocol."""
    try:
        value: Any = json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and {"name", "version", "extensions"} <= set(value)
