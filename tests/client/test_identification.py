"""What a server says of a picture and a character, as both clients read it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import numpy as np
import pytest

from intaglio.contract.filters import IdentityFilter
from intaglio.errors import InvalidRequest, Unavailable
from intaglio_client import AsyncClient, Client, ServerError
from intaglio_client.asking import Settings
from intaglio_client.connections.retries import NO_RETRIES
from intaglio_client.errors import NotServed
from intaglio_client.filters.opening import opened_filters
from intaglio_client.filters.servers import FilterServers
from intaglio_client.filters.verdict import Candidate, Verdict
from intaglio_client.identification import Identification

from .fake_server import FakeServer, Refusal, fake_server, response

ABOUT = {
    "character": "mara",
    "references": 3,
    "measure": "cosine",
    "reference": "mean",
    "threshold": 0.5,
    "seconds": 0.1,
}
FACE = {
    "box": [1.0, 2.0, 61.0, 82.0],
    "confidence": 0.9,
    "cosine": {"nearest": 0.6, "mean": 0.4},
    "euclidean": {"nearest": 0.9, "mean": 1.1},
}


def says(likeness: str, *faces: Any, **about: Any) -> Any:
    def answer(context: Any) -> Any:
        texts = {"likeness": likeness, "scores": json.dumps(faces), "identity": json.dumps(ABOUT | about)}
        yield response(**{name: [text.encode()] for name, text in texts.items()})

    return answer


async def asynchronously(server: FakeServer) -> Identification:
    async with AsyncClient(server.url) as client:
        return await client.identify(b"a picture", "mara", threshold=0.5, faces="any")


def test_both_clients_read_the_same() -> None:
    with fake_server(says("no match", FACE)) as server:
        with Client(server.url) as client:
            found = client.identify(b"a picture", "mara", threshold=0.5, faces="any")
        assert asyncio.run(asynchronously(server)) == found
        expected = {"image": "a picture", "character": "mara", "threshold": 0.5, "faces": "any"}
        assert server.inputs(0) == server.inputs(1) == expected
        assert server.requests[0].model_name == "identity"
    assert (found.likeness, found.matches, found.score) == ("no match", False, 0.4)
    assert (found.faces[0].box, found.references) == ((1.0, 2.0, 61.0, 82.0), 3)


def test_a_request_for_scores_may_be_repeated() -> None:
    away = Refusal(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    with fake_server(away, says("no face")) as server, Client(server.url) as client:
        found = client.identify(b"a picture", "mara")
        assert len(server.requests) == 2
    assert (found.faces, found.score) == ((), None)


@pytest.mark.parametrize("answer", [says("match", {"box": [1]}), says("match", 7)])
def test_an_answer_that_cannot_be_read_is_the_servers_fault(answer: Any) -> None:
    with (
        fake_server(answer) as server,
        Client(server.url) as client,
        pytest.raises(ServerError, match="answered without readable scores"),
    ):
        client.identify(b"a picture", "mara")


AWAY = Refusal(grpc.StatusCode.UNAVAILABLE, "Socket closed")


def judged_by_a_server_that_comes_back(patience: float, *, stopped: bool = False) -> Verdict:
    """It is away for three requests."""
    spec = IdentityFilter(kind="identity", character="mara")
    settings = Settings(retries=NO_RETRIES)
    with fake_server(AWAY, AWAY, AWAY, says("match", FACE)) as server:
        asked = FilterServers((server.url,), settings, patience, lambda: stopped)
        with opened_filters([spec], servers=asked) as (judge,):
            return judge(Candidate(np.zeros((8, 8, 3), np.uint8), "a"))


def test_the_filter_waits_for_a_server_that_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intaglio_client.filters.identity._PAUSE_SECONDS", 0.01)
    assert judged_by_a_server_that_comes_back(60).accepted
    for patience, stopped in ((0, False), (60, True)):
        with pytest.raises(Unavailable, match="Socket closed"):
            judged_by_a_server_that_comes_back(patience, stopped=stopped)


def test_the_filter_does_not_wait_for_a_server_that_reads_no_faces() -> None:
    unknown = Refusal(grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'identity' is not found")
    spec = IdentityFilter(kind="identity", character="mara")
    with (
        fake_server(unknown, says("match", FACE)) as server,
        opened_filters([spec], servers=FilterServers((server.url,), patience=60)) as (judge,),
        pytest.raises(NotServed),
    ):
        judge(Candidate(np.zeros((8, 8, 3), np.uint8), "a"))


def test_a_wrong_value_is_not_sent() -> None:
    with fake_server(says("match")) as server, Client(server.url) as client:
        for values in ({"threshold": 3.0}, {"faces": "two"}):
            with pytest.raises(InvalidRequest, match=f"{next(iter(values))}: .*allowed: "):
                client.identify(b"a picture", "mara", **values)  # type: ignore[arg-type]
        assert not server.requests


@pytest.mark.parametrize(
    ("answer", "reason", "scores"),
    [
        (says("match", FACE), "", {"likeness": "match", "faces": 1, "cosine": 0.4, "euclidean": 1.1}),
        (
            says("no match", FACE),
            "cosine 0.4000 is below 0.5",
            {"likeness": "no match", "faces": 1, "cosine": 0.4, "euclidean": 1.1},
        ),
        (
            says("no match", FACE, measure="euclidean", reference="nearest"),
            "euclidean 0.9000 is above 0.5",
            {"likeness": "no match", "faces": 1, "cosine": 0.6, "euclidean": 0.9},
        ),
        (says("no face"), "no face", {"likeness": "no face", "faces": 0}),
    ],
)
def test_the_filter_gives_reasons_and_scores(answer: Any, reason: str, scores: dict[str, Any]) -> None:
    spec = IdentityFilter(kind="identity", character="mara")
    with (
        fake_server(answer) as server,
        opened_filters([spec], servers=FilterServers((server.url,))) as (judge,),
    ):
        verdict = judge(Candidate(np.zeros((8, 8, 3), np.uint8), "a"))
    assert (verdict.accepted, verdict.reason, verdict.scores) == (not reason, reason, scores)
