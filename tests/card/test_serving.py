"""A server on the card: reload, kill -9, restart."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.builds.manifest import RUNTIME_CACHE_NAME
from intaglio.cli import main
from intaglio.contract.config import Deployment
from intaglio.engines.card import read_card_memory
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server

from ..serving.test_recovery import serving
from ..serving.test_reload import supervised
from .conftest import ON_CPU, fused, picture

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.card("a card, TensorRT-RTX and Triton: a reload, during which both builds are resident")
def test_a_reload_takes_up_the_new_build(
    miniature: Deployment, tmp_path: Path, record: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def build(loras: dict[str, float]) -> Any:
        return fused(miniature, tmp_path, loras, name="plate")

    build({"mara": 1.0})
    with supervised(tmp_path / "plate.yaml", build) as served:
        before = picture(served.server.grpc_url)
        build({"night": 0.9})
        began = time.perf_counter()
        assert main(["reload", str(served.config)]) == 0
        seconds = time.perf_counter() - began
        after = picture(served.server.grpc_url)
        assert served.versions() == {"2"}
    said = capsys.readouterr().out
    assert "switched in" in said
    assert not np.array_equal(before, after)
    record(reload_seconds=round(seconds, 1), reload_said=said[-600:])


@pytest.mark.card("a card, TensorRT-RTX and Triton: kill -9 of the process that computes")
def test_a_killed_stage_comes_back(miniature: Deployment, record: Callable[..., None]) -> None:
    free = read_card_memory(0)
    with serving(miniature) as running:
        running.read_until("Ctrl-C stops it")
        before = picture(running.url)
        began = time.perf_counter()
        os.kill(running.children()["diffuse_0_0"].pid, signal.SIGKILL)
        running.read_until("restart")
        running.read_until("ready")
        after = picture(running.url)
        record(recovery_seconds=round(time.perf_counter() - began, 1))
        assert np.array_equal(before, after)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 0
    left = read_card_memory(0)
    if not ON_CPU and free is not None and left is not None:
        record(card_bytes_left_after_a_crash=left.used - free.used)
        assert left.used - free.used < 64 * 2**20


@pytest.mark.card("a card, TensorRT-RTX and Triton: a second start, which compiles no kernel")
def test_a_restart_compiles_nothing(miniature: Deployment, record: Callable[..., None]) -> None:
    def start_and_draw() -> tuple[float, Any]:
        began = time.perf_counter()
        with Server(miniature, endpoints=Endpoints()) as server:
            drawn = picture(server.grpc_url)
            return time.perf_counter() - began, drawn

    first, drawn = start_and_draw()
    kept = kernels(miniature)
    second, again = start_and_draw()
    record(start_seconds=round(first, 1), restart_seconds=round(second, 1))
    assert np.array_equal(drawn, again)
    assert kernels(miniature) == kept
    assert ON_CPU or len(kept) > 5


def kernels(deployment: Deployment) -> dict[str, int]:
    """Bytes of the files of compiled kernels, which are written again at every first pass of a shape."""
    files = deployment.build_folder.glob(f"engines/*/{RUNTIME_CACHE_NAME}")
    return {file.parent.name: file.stat().st_size for file in files}
