"""Which of several servers is asked."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from intaglio.errors import InvalidRequest
from intaglio_client.connections.endpoints import Endpoint, Endpoints

URLS = ["a:1", "b:1", "c:1"]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def chosen(endpoints: Endpoints, *tried: Endpoint) -> Endpoint:
    found = endpoints.choose(tried=tried)
    assert found is not None
    return found


def test_round_robin_asks_all_in_turn() -> None:
    endpoints = Endpoints(URLS)
    assert [chosen(endpoints).url for _ in range(5)] == ["a:1", "b:1", "c:1", "a:1", "b:1"]


def test_threads_share_the_turns() -> None:
    endpoints = Endpoints(URLS)
    with ThreadPoolExecutor(6) as pool:
        found = Counter(pool.map(lambda _: chosen(endpoints).url, range(300)))
    assert set(found.values()) == {100}


def test_the_least_waiting_is_asked() -> None:
    clock = Clock()
    endpoints = Endpoints(URLS, balance="least_waiting", clock=clock)
    a, b, c = endpoints.all
    a.enter()
    b.enter()
    assert [chosen(endpoints), chosen(endpoints)] == [c, c]
    c.told(7)
    assert {chosen(endpoints), chosen(endpoints)} == {a, b}
    clock.now += 6
    assert chosen(endpoints) is c, "what it told is too old"
    a.leave()
    assert {chosen(endpoints), chosen(endpoints)} == {a, c}


def test_one_that_is_down_comes_last_for_a_while() -> None:
    clock = Clock()
    endpoints = Endpoints(URLS, clock=clock)
    a, b, c = endpoints.all
    a.failed()
    assert [chosen(endpoints) for _ in range(4)] == [b, c, b, c]
    assert chosen(endpoints, b, c) is a, "there is no other"
    clock.now += 6
    assert a in [chosen(endpoints) for _ in range(3)]


def test_none_is_left() -> None:
    endpoints = Endpoints("a:1")
    assert endpoints.choose(tried=endpoints.all) is None


def test_the_same_address_counts_once() -> None:
    assert [one.url for one in Endpoints(["a:1", "b:1", "a:1"]).all] == ["a:1", "b:1"]


def test_what_is_no_choice_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^url: none given"):
        Endpoints([])
    with pytest.raises(InvalidRequest, match=r"^balance: 'random'; allowed: round_robin, least_waiting"):
        Endpoints("a:1", balance="random")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=r"^url: 'b'"):
        Endpoints(["a:1", "b"])
