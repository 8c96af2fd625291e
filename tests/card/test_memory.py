"""Memory of the card: predicted and measured; flat over many sets of LoRAs; short; shared by two servers."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchmarks.measuring.ballast import ballast
from intaglio.builds.manifest import read_manifest
from intaglio.cli import main
from intaglio.contract.config import Deployment
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.engines.card import read_card_memory
from intaglio.errors import ConfigError
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.memory import GIB, MIB, predict_memory
from intaglio.serving.server import Server
from intaglio_client import Client
from intaglio_client.demo import PROMPT

from ..serving.test_reload import supervised
from .asked import request_of
from .conftest import ON_CPU, fused, picture
from .test_loras import opened

SETS = int(os.environ.get("INTAGLIO_CARD_SETS", "30" if ON_CPU else "100"))
"""A set takes a second on a card, so 500 of them take longer than the whole suite may."""
SETTLED = SETS // 10
"""Sets after which every buffer has its largest size."""


def used_bytes() -> int:
    """Of the card, or of this process where there is none."""
    card = read_card_memory(0)
    return psutil.Process().memory_info().rss if card is None else card.used


@pytest.mark.card("a card and TensorRT-RTX: random sets of LoRAs in turn")
def test_memory_is_flat_over_random_sets(miniature: Deployment, record: Callable[..., None]) -> None:
    served = LoraStore(miniature.build_folder / LORAS_FOLDER).current().loras
    rng = random.Random(1)

    def random_set() -> tuple[ResolvedLora, ...]:
        names = rng.sample(sorted(served), rng.randrange(1, 4))
        weights = [round(rng.uniform(0.1, 1.5), 3) for _ in names]
        return tuple(
            ResolvedLora(id=name, sha256=served[name].sha256, weight=weight)
            for name, weight in zip(names, weights, strict=True)
        )

    with opened(read_manifest(miniature.build_folder), miniature.build_folder) as (make, diffuse):
        switch = diffuse.loras
        assert switch is not None
        make([])
        switch.ensure(
            tuple(ResolvedLora(id=name, sha256=lora.sha256, weight=1.0) for name, lora in served.items())
        )
        for _ in range(SETTLED):
            switch.ensure(random_set())
        settled = used_bytes()
        began = time.monotonic()
        for _ in range(SETS - SETTLED):
            switch.ensure(random_set())
        seconds = (time.monotonic() - began) / (SETS - SETTLED)
        grown = used_bytes() - settled
    record(lora_sets=SETS, lora_sets_grown_bytes=grown, lora_set_seconds=round(seconds, 3))
    assert grown <= (32 * MIB if ON_CPU else 2 * MIB)


@pytest.fixture(scope="module")
def alone(miniature: Deployment) -> Iterator[tuple[Server, int]]:
    """A server of its own, and the bytes of the card that were used before it."""
    before = used_bytes()
    with Server(miniature, endpoints=Endpoints()) as server:
        yield server, before


@pytest.mark.card("a card, TensorRT-RTX and Triton: the memory of the served miniature", only=True)
def test_memory_is_what_was_predicted(
    alone: tuple[Server, int], miniature: Deployment, record: Callable[..., None]
) -> None:
    server, before = alone
    with Client(server.grpc_url, deadline=120) as client:
        client.generate(PROMPT, **request_of("euler"))
        # LoRAs take the memory of their weights on the way, and of what merges them.
        client.generate(PROMPT, **request_of("euler") | {"loras": [("mara", 1.0), ("night", 0.5)]})
    taken = used_bytes() - before
    expected = predict_memory(miniature, read_manifest(miniature.build_folder)).expected
    record(
        memory=server.memory_report,
        memory_gib=round(taken / GIB, 3),
        memory_predicted_to_measured=round(expected / taken, 3),
    )
    reported = re.match(r"([\d.]+) GiB of the card", server.memory_report)
    assert reported is not None
    assert float(reported[1]) == pytest.approx(taken / GIB, rel=0.05)
    assert abs(expected / taken - 1) <= 0.05


@pytest.mark.card("a card with room for two servers, TensorRT-RTX and Triton")
def test_two_servers_share_the_card(
    alone: tuple[Server, int], miniature: Deployment, record: Callable[..., None]
) -> None:
    first, _ = alone
    expected = picture(first.grpc_url)
    before = used_bytes()
    with Server(miniature, endpoints=Endpoints()) as second:
        assert np.array_equal(picture(second.grpc_url), expected)
        assert np.array_equal(
            picture(first.grpc_url, loras=[("mara", 1.0)]), picture(second.grpc_url, loras=[("mara", 1.0)])
        )
        record(second_server_bytes=used_bytes() - before)
    assert np.array_equal(picture(first.grpc_url), expected)
    assert ON_CPU or used_bytes() - before < 64 * MIB, "the second server gave its memory back"


@pytest.mark.card(
    "a card whose memory another process fills: a build that does not fit is not served", only=True
)
def test_a_server_that_does_not_fit_is_refused(miniature: Deployment) -> None:
    with ballast(1.0), pytest.raises(ConfigError, match=r"needs [\d.]+ GiB .*; the card has free 1\.0\d GiB"):
        Server(miniature, endpoints=Endpoints()).__enter__()


@pytest.mark.card("a card whose memory another process fills: a second build beside the first", only=True)
@pytest.mark.usefixtures("nothing_left")
def test_a_reload_that_does_not_fit_is_refused_and_the_server_goes_on(
    miniature: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str], record: Callable[..., None]
) -> None:
    def build(loras: dict[str, float]) -> Any:
        return fused(miniature, tmp_path, loras, name="plate")

    build({"mara": 1.0})
    with supervised(tmp_path / "plate.yaml", build) as served:
        before = picture(served.server.grpc_url)
        build({"night": 0.9})
        with ballast(0.5):
            assert main(["reload", str(served.config)]) != 0
            said = capsys.readouterr()
            refusal = re.search(r"needs [\d.]+ GiB .*beside the [\d.]+ GiB served; .*", said.out + said.err)
            assert refusal is not None, said
            assert np.array_equal(picture(served.server.grpc_url), before)
            assert served.versions() == {"1"}
        assert main(["reload", str(served.config)]) == 0, "with room, it is accepted"
        assert not np.array_equal(picture(served.server.grpc_url), before)
    record(reload_refused=refusal[0])
