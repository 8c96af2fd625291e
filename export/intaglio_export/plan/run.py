"""Do the stages of a plan that must be done, in an order that uses the machine."""

# ruff: noqa: PLC0415  (torch is imported only when a stage must be done)

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final, Protocol

from intaglio_export.plan.plan import Plan
from intaglio_export.plan.stages import Notes, Stage, StageKind, StageOutcome
from intaglio_export.plan.workers import Workers, worker_count
from intaglio_export.weights.sources import component_of

__all__ = ["Reporter", "run_overlapped", "run_parallel", "run_stages"]

_TYPICAL_SECONDS: Final[dict[StageKind, float]] = {
    "fuse": 10.0,
    "onnx": 4.0,
    "engine": 4.0,
    "pristine": 1.0,
    "verify": 2.0,
}
"""For the progress bar, until a stage has run here for the first time."""
_OF_A_NETWORK: Final[tuple[StageKind, ...]] = ("onnx", "engine", "verify")
"""What is made of one network, in this order."""
_LONGEST_FIRST: Final = ("unet", "controlnet", "text_encoder_2")
"""Kinds of components by how long their networks take."""


class Reporter(Protocol):
    """Who watches a build."""

    def planned(self, seconds: float) -> None:
        """The work ahead, in expected seconds."""

    def started(self, stage: str, reason: str) -> None:
        """A stage must be done, for this reason."""

    def finished(self, outcome: StageOutcome, expected: float) -> None:
        """A stage is done or was skipped; it was expected to take `expected` seconds."""

    def waiting(self) -> None:
        """Another build has the store."""


def run_stages(plan: Plan, *, force: bool, reporter: Reporter) -> tuple[StageOutcome, ...]:
    """Do every stage of `plan` whose result is not in its store; with `force`, do all.

    Raises:
        BuildError: a stage failed.
    """
    reasons: dict[str, str] = {}
    for stage in plan.stages:
        reason = "forced" if force else plan.store.why(stage)
        if reason is not None:
            reasons[stage.name] = reason
    expected = {stage.name: _expected_seconds(plan, stage) for stage in plan.stages if stage.name in reasons}
    reporter.planned(sum(expected.values()))
    if not reasons:
        return tuple(_skipped(stage, reporter) for stage in plan.stages)

    def run(stage: Stage, make: Callable[[Path], Notes]) -> StageOutcome:
        if stage.name in reasons:
            reporter.started(stage.name, reasons[stage.name])
        outcome = plan.store.run(stage, make, force=force)
        reporter.finished(outcome, expected.get(stage.name, 0.0))
        return outcome

    count = 1 if plan.platform.runtime == "onnxruntime" else min(worker_count(plan), len(reasons))
    if count > 1:
        with Workers(plan, count) as workers:
            return run_parallel(
                plan.stages, lambda stage: run(stage, lambda work: workers.make(stage, work)), count=count
            )
    return _run_here(plan, run)


def _run_here(
    plan: Plan, run: Callable[[Stage, Callable[[Path], Notes]], StageOutcome]
) -> tuple[StageOutcome, ...]:
    """Do the stages in this process."""
    from intaglio_export.plan.quiet import quiet_libraries

    with warnings.catch_warnings():
        quiet_libraries()
        maker_of = _makers(plan)
        if plan.platform.runtime == "onnxruntime":
            return tuple(run(stage, maker_of(stage)) for stage in plan.stages)
        return run_overlapped(plan.stages, lambda stage: run(stage, maker_of(stage)))


def _expected_seconds(plan: Plan, stage: Stage) -> float:
    return plan.store.expected_seconds(stage, otherwise=_TYPICAL_SECONDS[stage.kind])


def _skipped(stage: Stage, reporter: Reporter) -> StageOutcome:
    outcome = StageOutcome(stage.name, False, "unchanged", 0.0)
    reporter.finished(outcome, 0.0)
    return outcome


def _makers(plan: Plan) -> Callable[[Stage], Callable[[Path], Notes]]:
    """For a stage, the function that fills a folder with its result."""
    from intaglio_export.plan.make import MAKERS, NetworkLoader

    loader = NetworkLoader(plan)

    def maker_of(stage: Stage) -> Callable[[Path], Notes]:
        return lambda work: MAKERS[stage.kind](loader, stage.network, work)

    return maker_of


def run_overlapped(stages: Sequence[Stage], run: Callable[[Stage], StageOutcome]) -> tuple[StageOutcome, ...]:
    """Compile engines in one thread while this one exports the next networks and verifies finished engines.

    TensorRT compiles on one core and takes minutes for a network. The largest networks go first. A failure is
    raised after the compilation that has begun.
    """
    done: dict[str, StageOutcome] = {}
    compiling: dict[str, Future[StageOutcome]] = {}
    checks = {stage.network: stage for stage in stages if stage.kind == "verify"}
    # One, because SDXL's UNet and its ControlNet compiled together took 30 GiB of the host's memory.
    with ThreadPoolExecutor(1) as pool:
        try:
            for stage in sorted(stages, key=_rank):
                if stage.kind == "engine":
                    compiling[stage.network] = pool.submit(run, stage)
                elif stage.kind != "verify":
                    done[stage.name] = run(stage)
            for network, future in compiling.items():
                outcome = future.result()
                done[outcome.name] = outcome
                if network in checks:
                    check = checks[network]
                    done[check.name] = run(check)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tuple(done[stage.name] for stage in stages)


def run_parallel(
    stages: Sequence[Stage], run: Callable[[Stage], StageOutcome], *, count: int
) -> tuple[StageOutcome, ...]:
    """Do up to `count` stages at a time: `fuse`, then each network from its graph to its verification, then
    `pristine`, which reads several graphs.

    The largest networks go first. A failure is raised after the stages that have begun.
    """
    done: dict[str, StageOutcome] = {}
    failed = threading.Event()

    def run_chain(chain: Sequence[Stage]) -> None:
        for stage in chain:
            if failed.is_set():
                return
            done[stage.name] = run(stage)

    with ThreadPoolExecutor(count) as pool:
        for wave in _waves(stages):
            futures = [pool.submit(run_chain, chain) for chain in wave]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                failed.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return tuple(done[stage.name] for stage in stages)


def _waves(stages: Sequence[Stage]) -> list[list[list[Stage]]]:
    """Chains of stages that depend on nothing but the waves before and the chain's own beginning."""
    ordered = sorted(stages, key=_rank)
    chains: dict[str, list[Stage]] = {}
    for stage in ordered:
        if stage.kind in _OF_A_NETWORK:
            chains.setdefault(stage.network, []).append(stage)
    fused = [[stage] for stage in ordered if stage.kind == "fuse"]
    last = [[stage] for stage in ordered if stage.kind == "pristine"]
    networks = [sorted(chain, key=lambda stage: _OF_A_NETWORK.index(stage.kind)) for chain in chains.values()]
    return [fused, networks, last]


def _rank(stage: Stage) -> int:
    """Orders stages: `fuse`, on which others depend, then networks by how long they take."""
    if stage.kind == "fuse":
        return -1
    component = component_of(stage.network).partition(".")[0]
    return _LONGEST_FIRST.index(component) if component in _LONGEST_FIRST else len(_LONGEST_FIRST)
