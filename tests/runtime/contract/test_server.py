"""The address that Triton listens on."""

from __future__ import annotations

from typing import Any

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


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"gpus": [0, 0]}, "a card is listed twice"),
        ({"gpus": []}, "at least 1 item"),
        ({"gpus": "both"}, "all"),
        ({"instances": 0}, "greater than or equal to 1"),
    ],
)
def test_cards_are_listed_once(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Server(**values)


@pytest.mark.parametrize("one", [{}, {"instances": 1}, {"gpus": [1]}])
def test_hanging_is_for_several_that_draw(one: dict[str, Any]) -> None:
    """A key that nothing reads would promise what nobody does."""
    for several in ({"instances": 2}, {"gpus": [0, 1]}, {"gpus": "all"}):
        assert Server(**several, hang_seconds=30).hang_seconds == 30
        assert Server(**several).hang_seconds is None
    with pytest.raises(ValidationError, match="hang_seconds is for several that draw, and one draws here"):
        Server(**one, hang_seconds=30)


@pytest.mark.parametrize("seconds", [0, 4, -1, 3601, "soon", float("nan"), 7.5])
def test_nonsense_is_no_time_to_hang(seconds: object) -> None:
    with pytest.raises(ValidationError, match="hang_seconds"):
        Server.model_validate({"instances": 2, "hang_seconds": seconds})


def test_instances_follow_what_runs_the_networks() -> None:
    Server(gpus=(0, 1)).check_instances(on_card=True)
    Server(gpus="all").check_instances(on_card=True)
    Server(instances=2).check_instances(on_card=False)
    with pytest.raises(ValueError, match=r"server\.gpus names cards, but onnxruntime .* server\.instances"):
        Server(gpus=(0, 1)).check_instances(on_card=False)
    with pytest.raises(ValueError, match=r"server\.instances: 2: a card has one .* server\.gpus"):
        Server(instances=2).check_instances(on_card=True)
