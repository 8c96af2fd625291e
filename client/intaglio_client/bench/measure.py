"""The steps of a whole measurement: find the tool, ask for one picture of each kind, run every load."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from intaglio.contract.config import Deployment
from intaglio.errors import ConfigError, IntaglioError
from intaglio.exit_codes import TERMINATED
from intaglio.progress import progress_for
from intaglio.serving.build_check import check_build
from intaglio.stop_signals import stopped_by_signals
from intaglio_client.bench.exports import Sample, read_export, samples_of
from intaglio_client.bench.kept import Kept
from intaglio_client.bench.machine import describe_machine
from intaglio_client.bench.memory import Memory, MemoryWatch, local_process
from intaglio_client.bench.runs import Run, first_of_each_kind
from intaglio_client.bench.serving import Served, measured_server, served_model
from intaglio_client.bench.tool import Files, Tool

__all__ = ["Measured", "Result", "Task", "measure"]


@dataclass(frozen=True)
class Task:
    """What is to be measured, and where its results lie."""

    runs: Sequence[Run]
    tool: Tool
    folder: Path
    ends: float = math.inf
    """By `time.monotonic`: a load that would not be over by then is not begun."""


@dataclass(frozen=True)
class Result:
    """What was found of one run."""

    run: Run
    samples: Sequence[Sample] = ()
    memory: Memory | None = None
    """The most that the server held meanwhile; None where it is on another machine."""
    failed: str | None = None
    """Why there are no samples."""


@dataclass(frozen=True)
class Measured:
    """What was found of all runs, and where."""

    results: Sequence[Result]
    served: Served
    tool: Tool
    machine: dict[str, Any] = field(repr=False)


def measure(
    task: Task,
    *,
    url: str | None,
    deployment: Deployment | None,
    console: Console,
    keep: Callable[[Measured], object] = lambda measured: None,
) -> Measured:
    """Measure every run whose result is not in the task's folder already.

    A load that fails (the queue is full, say) is reported and does not end the others. `keep` is given what
    is known so far, after each load.

    Raises:
        ConfigError: the server does not serve the build of `deployment`.
        IntaglioError: see `measured_server` and `served_model`.
    """

    def report(text: str) -> None:
        console.print(text, markup=False)

    build = check_build(deployment).key if deployment else None
    machine = describe_machine(Path(__file__).parent, card=deployment.execution.gpu if deployment else 0)
    with stopped_by_signals(code=TERMINATED), measured_server(url, deployment, report=report) as client:
        served = served_model(client, first_of_each_kind(task.runs), report=report)
        if build not in (None, served.model.get("build")):
            raise ConfigError(
                f"the server at {served.url} serves another build than the one of --config; reload it, or "
                "leave one of both out"
            )
        kept = Kept(
            task.folder / "loads",
            {**served.model, "url": "" if deployment else served.url},
            {"version": task.tool.version, "mode": task.tool.mode},
            f"{machine['processor']} {machine['card']}",
        )
        process = local_process(served.url)
        gpu = deployment.execution.gpu if deployment else 0
        card = None if served.model.get("runtime") == "onnxruntime" else gpu
        results = _results(
            task,
            kept,
            served,
            console,
            keep=lambda found: keep(Measured(found, served, task.tool, machine)),
            watched=lambda: MemoryWatch(process, card=card),
        )
    return Measured(results, served, task.tool, machine)


def _results(
    task: Task,
    kept: Kept,
    served: Served,
    console: Console,
    *,
    keep: Callable[[list[Result]], object],
    watched: Callable[[], MemoryWatch],
) -> list[Result]:
    found = {run.name: kept.samples(run) for run in task.runs}
    missing = [run for run in task.runs if found[run.name] is None]
    if len(missing) < len(task.runs):
        kept_before = len(task.runs) - len(missing)
        console.print(f"{kept_before} loads were measured before and are kept", markup=False)
    failed = {run.name: "not measured yet" for run in missing}
    with progress_for(console, math.fsum(_seconds(run, served) for run in missing)) as progress:
        for run in missing:
            expected = _seconds(run, served)
            progress.started(f"{run.load}: {run.kind} {run.shown_value}")
            try:
                _check_time(expected, task.ends)
                found[run.name] = _measured(run, task.tool, kept, served.url, expected, watched())
                del failed[run.name]
            except IntaglioError as error:
                failed[run.name] = str(error)
                console.print(f"failed: {error}", markup=False)
            progress.finished(expected)
            keep(_results_of(task.runs, kept, found, failed))
    return _results_of(task.runs, kept, found, failed)


def _check_time(expected: float, ends: float) -> None:
    left = ends - time.monotonic()
    if left < expected:
        raise IntaglioError(
            f"not begun: it takes about {expected:.0f} s, and {max(left, 0):.0f} s of --seconds were left; "
            "the same command measures it"
        )


def _results_of(
    runs: Sequence[Run],
    kept: Kept,
    found: Mapping[str, Sequence[Sample] | None],
    failed: Mapping[str, str],
) -> list[Result]:
    return [Result(run, found[run.name] or (), kept.memory(run), failed.get(run.name)) for run in runs]


def _measured(
    run: Run, tool: Tool, kept: Kept, url: str, expected: float, memory: MemoryWatch
) -> list[Sample]:
    files = Files(kept.folder, run.name)
    with memory:
        tool.run(run, url, files, expected=expected)
    requests = read_export(files.of("export.json"))
    samples = samples_of(run, requests)
    kept.keep(run, samples, requests, memory.peak)
    for kind in ("export.json", "input.json", "intervals"):
        files.of(kind).unlink(missing_ok=True)  # the pictures, and what the workload says anyway
    return samples


def _seconds(run: Run, served: Served) -> float:
    """About how long a run takes: the server draws one picture at a time, and an open load takes its time.

    Near its end perf_analyzer sends further requests, as many as are under way, and waits for them.
    """
    each = statistics.fmean(served.seconds[one.kind] for one in run.asked)
    drawing = (run.total + run.concurrency - 1) * each
    return max(drawing, run.total / run.value) if run.kind == "open" else drawing
