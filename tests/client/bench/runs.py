"""Runs, samples and reports for the tests of `intaglio bench`, without a server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from intaglio.serving.perf_analyzer import PerfAnalyzer
from intaglio_client.bench.exports import Sample
from intaglio_client.bench.measure import Measured, Result
from intaglio_client.bench.report import data_of
from intaglio_client.bench.runs import Run, runs_of
from intaglio_client.bench.serving import Served
from intaglio_client.bench.tool import Tool
from intaglio_client.bench.workload import Workload

MACHINE: dict[str, Any] = {
    "card": None, "processor": "x", "cores": 2, "commit": "0123456789abcdef", "changed": False,
    "versions": {"numpy": "1.26.4"},
}  # fmt: skip
OLD = Tool(PerfAnalyzer(Path("perf_analyzer"), {}), "2.45.0", counts_requests=False)
NEW = dataclasses.replace(OLD, version="2.60.0", counts_requests=True)
STAGES = {"preprocess": 0.01, "text_encoders": 0.02, "denoise": 0.5, "vae": 0.1, "postprocess": 0.01}


def workload_of(**loads: dict[str, Any]) -> Workload:
    """A workload of two kinds of requests and `loads`, which send `plain` unless they say otherwise."""
    plain = {"prompts": ["a", "b"], "inputs": {"steps": 4}}
    posed = {"prompts": ["c"], "controls": [{"type": "pose", "pose": "waving-01"}]}
    given = {name: {"mix": {"plain": 1}, "requests": 12, **load} for name, load in loads.items()}
    kinds = {kind for load in given.values() for kind in load["mix"]}
    requests = {name: one for name, one in (("plain", plain), ("posed", posed)) if name in kinds}
    return Workload.model_validate({"name": "w", "about": "a test", "requests": requests, "loads": given})


def samples_with(run: Run, seconds: Callable[[int], float], *, stages: bool = True) -> list[Sample]:
    """Samples of `run`, one after the other, that take `seconds` of their place."""
    found: list[Sample] = []
    sent = 0.0
    for place in range(run.warm_up, run.total):
        took = seconds(place)
        streamed = run.kind == "streaming"
        sample = Sample(
            place=place,
            kind=run.asked[place].kind,
            sent=sent,
            seconds=took,
            stages=STAGES if stages else {},
            picture=f"sha256:{place}",
            first_event=0.01 if streamed else None,
            first_preview=0.3 if streamed else None,
        )
        found.append(sample)
        sent += took
    return found


def report_of(
    workload: Workload, seconds: Callable[[int], float] = lambda place: 0.7, *, failed: Sequence[str] = ()
) -> dict[str, Any]:
    """The report of `workload`, whose requests take `seconds`; those of the loads `failed` failed."""
    results = [
        Result(run, failed="the queue is full")
        if run.load in failed
        else Result(run, samples_with(run, seconds))
        for run in runs_of(workload)
    ]
    served = Served("127.0.0.1:8001", {"build": "b" * 64, "runtime": "onnxruntime", "precision": "fp32"}, {})
    return data_of(Measured(results, served, OLD, MACHINE), workload)
