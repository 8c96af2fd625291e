"""Memory of the card: predicted and measured; flat over many sets of LoRAs; shared by two servers, and by two
builds during a reload; short.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.measuring.ballast import ballast
from intaglio.builds.manifest import RUNTIME_CACHE_NAME, read_manifest
from intaglio.cli import main
from intaglio.contract.config import Deployment
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.errors import ConfigError
from intaglio.loras.store import LORAS_FOLDER, LoraStore
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.memory import GIB, MIB, predict_memory
from intaglio.serving.server import Server
from intaglio_client import Client
from intaglio_client.demo import PROMPT

from ..serving.test_reload import supervised
from .asked import request_of
from .conftest import ON_CPU, fused, picture, used_bytes
from .test_loras import opened

SETS = int(os.environ.get("INTAGLIO_CARD_SETS", "30" if ON_CPU else "60"))
"""A set takes a second on a card, so 500 of them take longer than the whole suite may."""
SETTLED = SETS // 10
"""Sets after which every buffer has its largest size."""


@pytest.mark.card("a card and TensorRT-RTX: random sets of LoRAs in turn, then none")
def test_random_sets_leave_nothing_in_memory_nor_in_the_weights(
    miniature: Deployment, record: Callable[..., None]
) -> None:
    """Then the picture is the base's bit for bit."""
    served = LoraStore(miniature.build_folder / LORAS_FOLDER).current().loras
    rng = random.Random(1)

    def apply_random_set() -> None:
        names = rng.sample(sorted(served), rng.randrange(1, 5))
        weights = [round(rng.uniform(0.1, 1.5), 3) for _ in names]
        switch.ensure(
            tuple(
                ResolvedLora(id=name, sha256=served[name].sha256, weight=weight)
                for name, weight in zip(names, weights, strict=True)
            )
        )

    with opened(read_manifest(miniature.build_folder), miniature.build_folder) as (make, diffuse):
        assert diffuse.loras is not None
        switch = diffuse.loras
        base = make([])
        every = [ResolvedLora(id=name, sha256=lora.sha256, weight=1.0) for name, lora in served.items()]
        switch.ensure(tuple(every))
        for _ in range(SETTLED):
            apply_random_set()
        settled = used_bytes()
        began = time.monotonic()
        for _ in range(SETS - SETTLED):
            apply_random_set()
        seconds = (time.monotonic() - began) / (SETS - SETTLED)
        grown = used_bytes() - settled
        swaps = switch.counts.swaps
        last = make([("mara", 1.0), ("night", 1.0)])
        assert not np.array_equal(last, base), "the last set is seen"
        assert np.array_equal(make([]), base)
    record(lora_sets=SETS, lora_sets_grown_bytes=grown, lora_set_seconds=round(seconds, 3))
    assert swaps == SETS + 1
    assert ON_CPU or grown > -2 * MIB, "another process gave memory back meanwhile: nothing was measured"
    assert grown <= (32 * MIB if ON_CPU else 2 * MIB), "a leak, or memory that another process took"


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
def test_two_servers_share_the_card_and_the_kernels(
    server: Server, miniature: Deployment, record: Callable[..., None]
) -> None:
    """The second start compiles no kernel."""
    lora = [("mara", 1.0)]
    expected, with_lora = picture(server.grpc_url), picture(server.grpc_url, loras=lora)
    kept = kernels(miniature)
    before = used_bytes()
    began = time.perf_counter()
    with Server(miniature, endpoints=Endpoints()) as second:
        assert np.array_equal(picture(second.grpc_url), expected)
        seconds = time.perf_counter() - began
        assert np.array_equal(picture(second.grpc_url, loras=lora), with_lora)
        record(second_server_bytes=used_bytes() - before, second_server_start_seconds=round(seconds, 1))
    assert np.array_equal(picture(server.grpc_url), expected)
    assert ON_CPU or used_bytes() - before < 64 * MIB, "the second server gave its memory back"
    assert kernels(miniature) == kept
    assert ON_CPU or len(kept) > 5


def kernels(deployment: Deployment) -> dict[str, int]:
    """Bytes of the files of compiled kernels, which are written again at every first pass of a shape."""
    files = deployment.build_folder.glob(f"engines/*/{RUNTIME_CACHE_NAME}")
    return {file.parent.name: file.stat().st_size for file in files}


@pytest.mark.card(
    "a card whose memory another process fills: a build that does not fit is not served", only=True
)
def test_a_server_that_does_not_fit_is_refused(miniature: Deployment) -> None:
    with ballast(1.0), pytest.raises(ConfigError, match=r"needs [\d.]+ GiB .*; the card has free 1\.0\d GiB"):
        Server(miniature, endpoints=Endpoints()).__enter__()


@pytest.mark.card("a card, TensorRT-RTX and Triton: a reload, during which both builds are resident")
@pytest.mark.usefixtures("nothing_left")
def test_a_reload_takes_up_the_new_build_where_both_fit(
    miniature: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str], record: Callable[..., None]
) -> None:
    """While another process fills the card's memory, it is refused and the server goes on."""

    def build(loras: dict[str, float], **defaults: object) -> Any:
        return fused(miniature, tmp_path, loras, name="plate", **defaults)

    build({"mara": 1.0})
    with supervised(tmp_path / "plate.yaml", build) as served:
        before = picture(served.server.grpc_url)
        build({"night": 1.0})  # other engines, not only another configuration
        if not ON_CPU:
            with ballast(0.5):
                assert main(["reload", str(served.config)]) != 0
                said = capsys.readouterr()
                refusal = re.search(
                    r"needs [\d.]+ GiB .*beside the [\d.]+ GiB served; .*", said.out + said.err
                )
                assert refusal is not None, said
                assert np.array_equal(picture(served.server.grpc_url), before)
                assert served.versions() == {"1"}
            record(reload_refused=refusal[0])
        began = time.perf_counter()
        assert main(["reload", str(served.config)]) == 0, "with room, it is accepted"
        seconds = time.perf_counter() - began
        after = picture(served.server.grpc_url)
        assert served.versions() == {"2"}
    switched = capsys.readouterr().out
    assert "switched in" in switched
    assert not np.array_equal(before, after)
    record(reload_seconds=round(seconds, 1), reload_said=switched[-600:])
