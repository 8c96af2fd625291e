"""Headers of every call."""

from __future__ import annotations

import logging

import pytest

from intaglio.errors import InvalidRequest
from intaglio_client import Client
from intaglio_client.connections.channels import ChannelSettings, checked_headers

from ..fake_server import fake_server, picture, stream_of


def test_headers_travel_with_every_call() -> None:
    with (
        fake_server(picture, stream_of()) as server,
        Client(server.url, headers={"Authorization": "Bearer secret"}) as client,
    ):
        client.generate("a fox")
        client.stream("a fox").result()
    assert [one["authorization"] for one in server.headers] == ["Bearer secret"] * 2


@pytest.mark.parametrize(
    "headers",
    [
        {"a b": "x"},
        {"grpc-timeout": "1"},
        {"data-bin": "x"},
        {"x": "line\nbreak"},
        {"x": "ü"},
        {"": "x"},
        {"X-Request-Id": "1"},
    ],
)
def test_what_cannot_be_sent_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match=r"^headers"):
        Client("127.0.0.1:9", headers=headers)


def test_a_refused_value_is_not_repeated() -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked_headers({"authorization": "Bearer s3cret\n"})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(("url", "warns"), [("elsewhere:8001", True), ("127.0.0.1:8001", False)])
def test_a_secret_in_plain_text_is_warned_of(url: str, warns: bool, caplog: pytest.LogCaptureFixture) -> None:
    settings = ChannelSettings(headers={"authorization": "Bearer s3cret"})
    with caplog.at_level(logging.WARNING):
        settings.open(url).close()
    assert ("in plain text" in caplog.text) is warns
    assert "s3cret" not in caplog.text
