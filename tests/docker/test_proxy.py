"""Real servers behind a real Envoy: nothing is lost or drawn twice while they die, stop and come back."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from intaglio.contract.config import Deployment
from intaglio_client import Client, InvalidRequest

from ..leavings import own_servers
from ..serving.conftest import miniature
from .envoy import Attempt, Proxy, envoy, proxy
from .fleet import Replica, fleet
from .load import CALLERS, REQUESTS, SETS, SMALL, Load, asking

pytestmark = [pytest.mark.ship, pytest.mark.timeout(900)]
__all__ = ["miniature", "own_servers"]

LONG: Final[Any] = SMALL | {"steps": 150, "guidance_scale": 5.0}
"""Is drawn for seconds."""
PICTURE_BYTES: Final = 4000
"""More than a refusal has, and less than the smallest picture."""


@pytest.fixture(scope="module")
def replicas(miniature: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Replica]]:
    envoy()  # skips before servers are started
    with fleet(miniature, tmp_path_factory.mktemp("fleet"), size=3) as running:
        yield running


def ends(replicas: Sequence[Replica]) -> list[Any]:
    return [one.endpoints for one in replicas]


def busy(replicas: Sequence[Replica]) -> list[Replica]:
    return [one for one in replicas if one.metrics()["running"] == 1]


def place_of(url: str, replicas: Sequence[Replica], loras: Any) -> Replica:
    """The server that draws with `loras`, while nobody else asks."""
    before = [one.metrics().get("requests_finished_total", 0) for one in replicas]
    with Client(url, deadline=120) as client:
        client.generate("a person in a room", **SMALL, loras=loras)
    after = [one.metrics()["requests_finished_total"] for one in replicas]
    (found,) = [one for one, old, new in zip(replicas, before, after, strict=True) if new > old]
    return found


def wait_until(condition: Any, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def restart(stopped: Sequence[Replica], before: Proxy, replicas: Sequence[Replica]) -> None:
    """Start them again and wait until Envoy asks all servers."""
    for one in stopped:
        one.start()
    before.wait_for([one.endpoints.url("grpc") for one in replicas])


def long_picture(url: str, seed: int, loras: Any) -> Any:
    with Client(url, deadline=240) as client:
        return client.generate("a person on a beach", **LONG, seed=seed, loras=loras)


def test_nothing_is_lost_while_servers_die_stop_and_come_back(
    replicas: list[Replica], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server that is killed, and the one that drains, are each in the middle of a long picture."""
    with (
        proxy(ends(replicas), tmp_path / "envoy") as before,
        ThreadPoolExecutor(CALLERS + 2) as pool,
    ):
        load = Load(before.url)
        places = [place_of(before.url, replicas, loras) for loras in SETS]
        dies, other = places[0], next(one for one in range(len(SETS)) if places[one] is not places[0])
        stops = places[other]
        killed: Future[Any] = pool.submit(long_picture, before.url, 1, SETS[0])
        drained: Future[Any] = pool.submit(long_picture, before.url, 2, SETS[other])
        wait_until(lambda: {one.number for one in busy(replicas)} == {dies.number, stops.number})
        with asking(load, pool):
            wait_until(lambda: len(load.pictures) >= 5)
            assert not killed.done()
            dies.kill()
            assert not drained.done()
            assert stops.stop() == 0
            restart([dies, stops], before, replicas)
            for one in replicas:  # the rolling update
                assert one.stop() == 0
                restart([one], before, replicas)
        retried = {
            name: before.statistic(name) for name in ("upstream_rq_retry", "upstream_rq_retry_success")
        }
        last = {
            one.endpoints.url("grpc"): (one.began, one.metrics()["requests_finished_total"])
            for one in replicas
        }
        again = [long_picture(stops.endpoints.url("grpc"), 1, SETS[0]).data]
        again += [long_picture(dies.endpoints.url("grpc"), 2, SETS[other]).data]
    assert load.problems == []
    assert len(load.pictures) >= REQUESTS
    assert [killed.result().data, drained.result().data] == again, "equal seeds, equal pictures"
    long_ids = [killed.result().request_id, drained.result().request_id]
    with capsys.disabled():
        print(f"\n{figures_of(load, before, long_ids)} {retried}")
    check_answers(load, before, long_ids, last)
    check_redrawn(load, before, replicas[2])


def tries_of(before: Proxy) -> dict[str, list[Attempt]]:
    found = defaultdict(list)
    for one in before.sent():
        if one.method in ("ModelInfer", "ModelStreamInfer"):
            found[one.id].append(one)
    return found


def answers(tries: Sequence[Attempt]) -> list[Attempt]:
    """Those that a server answered with a picture. A stream's refusal has the status 0, too."""
    return [one for one in tries if one.status in ("0", "OK") and one.received > PICTURE_BYTES]


def figures_of(load: Load, before: Proxy, long_ids: Sequence[str]) -> dict[str, float]:
    tries, ordered = tries_of(before), sorted(load.seconds)
    asked = Counter(one.id for one in before.asked())
    return {
        "pictures": len(load.pictures),
        "lost": len(load.problems),
        "answered_twice": sum(len(answers(tries[one])) > 1 for one in (*load.ids, *long_ids)),
        "p50": round(ordered[len(ordered) // 2], 3),
        "p99": round(ordered[int(len(ordered) * 0.99)], 3),
        "longest": round(ordered[-1], 3),
        "sent_again_by_envoy": sum(one.attempts > 1 for one in before.asked()),
        "sent_again_by_clients": sum(number > 1 for number in asked.values()),
    }


def check_answers(
    load: Load, before: Proxy, long_ids: Sequence[str], last: dict[str, tuple[float, float]]
) -> None:
    """Each request has one answer in Envoy's log, and servers counted as many as Envoy got from them."""
    tries = tries_of(before)
    assert {*load.ids, *long_ids} <= set(tries)
    assert {len(answers(found)) for found in tries.values()} == {1}
    first, *_, final = tries[long_ids[0]]
    assert (answers([first]), answers([final])) == ([], [final]), "the killed one was drawn again"
    assert first.server != final.server
    assert len(tries[long_ids[1]]) == 1, "the drained one was finished where it was begun"
    for url, (began, finished) in last.items():
        got = [one for found in tries.values() for one in answers(found) if one.server == url]
        assert sum(one.time > began for one in got) == finished, url


def check_redrawn(load: Load, before: Proxy, replica: Replica) -> None:
    """What a client sent again is the picture that another server draws."""
    asked = Counter(one.id for one in before.asked())
    seeds = [load.ids[one] for one, number in asked.items() if number > 1 and one in load.ids]
    with Client(replica.endpoints.url("grpc"), deadline=120) as client:
        for seed in seeds:
            again = client.generate("a person in a room", **SMALL, loras=SETS[seed % len(SETS)], seed=seed)
            assert again.data == load.pictures[seed]


MANY_SETS: Final = (
    (("pencil", 1.0),),
    (("mara", 0.25),),
    (),
    (("mara", 0.5),),
    (("night", 1.0),),
    (("mara", 1.0),),
)
"""Two of each server, since the places on the ring come from names."""
SEQUENCE: Final = tuple(random.Random(1).choices(range(len(MANY_SETS)), k=48))


def swaps_of(replicas: Sequence[Replica]) -> float:
    return sum(one.metrics().get("lora_swaps_total", 0.0) for one in replicas)


def test_equal_sets_reach_one_server_and_few_are_swapped(
    replicas: list[Replica], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same requests, one after another, with Envoy's configuration and with round robin."""
    swaps, logs = {}, {}
    for name, in_turn in (("sticky", False), ("round_robin", True)):
        with proxy(ends(replicas), tmp_path / name, round_robin=in_turn) as before:
            start = swaps_of(replicas)
            with Client(before.url, deadline=120) as client:
                for index in SEQUENCE:
                    client.generate("a person in a room", **SMALL, loras=MANY_SETS[index])
            swaps[name] = swaps_of(replicas) - start
        logs[name] = before.sent()
    with capsys.disabled():
        print(f"\nswaps in {len(SEQUENCE)} pictures: {swaps}")
    places = defaultdict(set)
    for one in logs["sticky"]:
        places[one.loras].add(one.server)
    assert len(places) == len(MANY_SETS)
    assert {len(servers) for servers in places.values()} == {1}
    assert len(set.union(*places.values())) == len(replicas)
    for name, log in logs.items():  # the first request of a server finds what others left
        assert abs(changes_in(log) - swaps[name]) <= len(replicas), name
    assert swaps["sticky"] < 0.8 * swaps["round_robin"]


def changes_in(log: Sequence[Attempt]) -> int:
    """How often a server got another set than the request before."""
    last: dict[str, str] = {}
    changes = 0
    for one in sorted(log, key=lambda attempt: attempt.time):
        changes += last.get(one.server, one.loras) != one.loras
        last[one.server] = one.loras
    return changes


def test_a_popular_set_uses_more_servers_than_its_own(replicas: list[Replica], tmp_path: Path) -> None:
    """Nine requests of one set: its server gets its share, and others the rest."""
    with proxy(ends(replicas), tmp_path / "envoy") as before, Client(before.url, deadline=120) as client:
        place = place_of(before.url, replicas, SETS[1])
        with ThreadPoolExecutor(9) as pool:
            asked = [
                pool.submit(client.generate, "a person", **SMALL | {"steps": 40}, loras=SETS[1])
                for _ in range(9)
            ]
            assert all(one.result().data for one in asked)
    servers = Counter(one.server for one in before.sent()[1:])
    assert servers[place.endpoints.url("grpc")] == max(servers.values())
    assert len(servers) > 1
    assert max(servers.values()) <= 6, "1.25 times the mean, rounded up, and one"


def test_clients_reach_what_is_theirs(replicas: list[Replica], tmp_path: Path) -> None:
    """Not the operator's methods, and no message above the limit."""
    limit = 200_000
    with (
        proxy(ends(replicas), tmp_path / "envoy", most_bytes=limit) as before,
        grpc.insecure_channel(before.url) as channel,
    ):
        with Client(before.url) as client:
            assert client.is_ready()
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.RepositoryIndex(service_pb2.RepositoryIndexRequest())
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with Client(before.url) as client, pytest.raises(InvalidRequest, match=r"^request: too many bytes"):
            client.generate("a" * 2 * limit)
