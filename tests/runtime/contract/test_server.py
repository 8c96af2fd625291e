"""The address that Triton listens on."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from intaglio.contract.server import Server, checked_host


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", "gpu-1.example.org", "1and1.example"])
def test_ipv4_addresses_and_names_are_hosts(host: str) -> None:
    assert checked_host(host) == host
    assert Server(host=host).host == host


@pytest.mark.parametrize(
    "host",
    ["", " ", "::1", "[::1]", "a..b", "300.1.1.1", "127.1", "狐" * 70, "a" * 64, "a b", "http://a", "a."],
)
def test_what_triton_cannot_listen_on_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="is no host; allowed: an IPv4 address, such as 127"):
        checked_host(host)
    with pytest.raises(ValidationError):
        Server(host=host)
