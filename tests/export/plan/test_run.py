"""Stages that must be done, overlapped where TensorRT compiles."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Final

import pytest

from intaglio.errors import BuildError
from intaglio_export.plan.run import run_overlapped, run_parallel
from intaglio_export.plan.stages import Stage, StageKind, StageOutcome

KINDS: Final[tuple[StageKind, ...]] = ("onnx", "engine", "verify")
NETWORKS = ("text_encoder", "unet", "controlnet.pose")


def overlapped(run: Callable[[Stage], StageOutcome]) -> tuple[StageOutcome, ...]:
    stages = [Stage(kind, network, {}, {}) for network, kind in itertools.product(NETWORKS, KINDS)]
    return run_overlapped(stages, run)


def test_one_network_is_compiled_at_a_time_while_the_one_before_is_verified() -> None:
    verifying = threading.Event()
    compiling = threading.Semaphore(1)

    def run(stage: Stage) -> StageOutcome:
        if stage.kind == "engine":
            assert compiling.acquire(blocking=False), "two at once take 30 GiB of the host with SDXL's"
            if stage.name == "engine/controlnet.pose":
                assert verifying.wait(10), "the UNet waits for what has nothing to do with it"
            compiling.release()
        elif stage.name == "verify/unet":
            verifying.set()
        return StageOutcome(stage.name, True, "test", 0.0)

    assert [outcome.name for outcome in overlapped(run)] == [
        f"{kind}/{network}" for network, kind in itertools.product(NETWORKS, KINDS)
    ]


def test_an_engine_that_disagrees_ends_the_build() -> None:
    def run(stage: Stage) -> StageOutcome:
        if stage.name == "verify/unet":
            raise BuildError("disagrees")
        return StageOutcome(stage.name, True, "test", 0.0)

    with pytest.raises(BuildError, match="disagrees"):
        overlapped(run)


def parallel(run: Callable[[Stage], StageOutcome], *, count: int) -> tuple[StageOutcome, ...]:
    stages = [Stage(kind, network, {}, {}) for network, kind in itertools.product(NETWORKS, KINDS)]
    return run_parallel(
        [Stage("fuse", "", {}, {}), *stages, Stage("pristine", "unet", {}, {})], run, count=count
    )


def test_networks_are_made_together_and_each_waits_for_what_it_needs() -> None:
    together = threading.Barrier(3)
    begun: list[str] = []

    def run(stage: Stage) -> StageOutcome:
        begun.append(stage.name)
        if stage.kind == "engine":
            together.wait(10)
        return StageOutcome(stage.name, True, "test", 0.0)

    outcomes = parallel(run, count=3)
    assert [outcome.name for outcome in outcomes] == [
        "fuse",
        *(f"{kind}/{network}" for network, kind in itertools.product(NETWORKS, KINDS)),
        "pristine/unet",
    ]
    assert begun[:2] == ["fuse", "onnx/unet"], "the largest first"
    for network in NETWORKS:
        own = [name for name in begun if name.endswith(f"/{network}")]
        assert own[:3] == [f"{kind}/{network}" for kind in KINDS]
    assert begun[-1] == "pristine/unet", "it reads the graphs of several networks"


def test_the_longest_engine_waits_for_no_other_graph() -> None:
    compiling = threading.Event()

    def run(stage: Stage) -> StageOutcome:
        if stage.name == "engine/unet":
            compiling.set()
        elif stage.name == "onnx/text_encoder":
            assert compiling.wait(10)
        return StageOutcome(stage.name, True, "test", 0.0)

    parallel(run, count=2)


def test_a_failure_ends_the_stages_that_have_not_begun() -> None:
    begun: list[str] = []

    def run(stage: Stage) -> StageOutcome:
        begun.append(stage.name)
        if stage.name == "engine/unet":
            raise BuildError("disagrees")
        return StageOutcome(stage.name, True, "test", 0.0)

    with pytest.raises(BuildError, match="disagrees"):
        parallel(run, count=1)
    assert "verify/unet" not in begun
