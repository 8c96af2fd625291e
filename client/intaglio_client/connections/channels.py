"""How a connection of gRPC is opened: message sizes, keepalive, TLS, and the headers of every call."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio

from intaglio.errors import InvalidRequest
from intaglio_client.connections.proxy_headers import LORAS_HEADER, REQUEST_ID_HEADER
from intaglio_client.connections.tls import Tls
from intaglio_client.connections.trace_headers import trace_headers

__all__ = ["KEEPALIVE_SECONDS", "ChannelSettings", "checked_headers"]

KEEPALIVE_SECONDS: Final = 330.0
"""Between pings, which notice a connection that dies while an image is made.

A server takes one ping in five minutes while it sends nothing, unless it was started with other options. It
closes the connection of whoever pings more often ("too_many_pings").
"""
_LARGEST_MESSAGE: Final = 2**31 - 1
_OPTIONS: Final = [
    ("grpc.max_send_message_length", _LARGEST_MESSAGE),
    ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # A restarted server is found again within seconds; with gRPC's default that may take two minutes.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # How long one attempt to connect may take; gRPC's default is 20 s.
    ("grpc.min_reconnect_backoff_ms", 5_000),
]
_HEADER: Final = re.compile(r"[0-9a-z_.-]+")
_SECRET: Final = "authorization"
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSettings:
    """What all connections of a client have in common."""

    keepalive: float = KEEPALIVE_SECONDS
    """Seconds between pings."""
    tls: Tls | None = None
    """None: plain text."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every call."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers as gRPC takes them, with those of the application's trace."""
        return tuple({**self.headers, **trace_headers(self.headers)}.items())

    def open(self, url: str) -> grpc.Channel:
        """A channel to `url`; the first call connects. InvalidRequest where a file of TLS is wrong."""
        if self.tls is None:
            self._warn_of_plain_text(url)
            return grpc.insecure_channel(url, options=self._options())
        return grpc.secure_channel(url, self.tls.credentials(), options=self._options())

    def open_async(self, url: str) -> grpc.aio.Channel:
        """The same for asyncio; a loop must be running."""
        if self.tls is None:
            self._warn_of_plain_text(url)
            return grpc.aio.insecure_channel(url, options=self._options())
        return grpc.aio.secure_channel(url, self.tls.credentials(), options=self._options())

    def _options(self) -> list[tuple[str, Any]]:
        options: list[tuple[str, Any]] = [
            *_OPTIONS,
            ("grpc.keepalive_time_ms", round(1000 * self.keepalive)),
        ]
        if self.tls is not None and self.tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def _warn_of_plain_text(self, url: str) -> None:
        if _SECRET in self.headers and url.rpartition(":")[0] not in _LOOPBACK:
            _log.warning("the header %s travels to %s in plain text; tls=Tls(...) encrypts it", _SECRET, url)


def checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """`headers` with names in lower case, as HTTP/2 has them.

    Raises:
        InvalidRequest: a name or a value that gRPC cannot send; the value is not repeated, since it may be
            a secret.
    """
    found = {}
    for name, value in (headers or {}).items():
        lower = name.lower()
        if not _HEADER.fullmatch(lower) or lower.startswith("grpc-") or lower.endswith("-bin"):
            allowed = "letters, digits, _ . and -; neither grpc-... nor ...-bin"
            raise InvalidRequest("headers", f"name {name!r}", allowed=allowed)
        if lower in (LORAS_HEADER, REQUEST_ID_HEADER):
            raise InvalidRequest("headers", f"name {name!r}", allowed="absent; the client writes this one")
        if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
            raise InvalidRequest(f"headers.{lower}", "a value that cannot be sent", allowed="printable ASCII")
        found[lower] = value
    return found
