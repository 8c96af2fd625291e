"""The results of a measurement as JSON, and that JSON as a table and as a page in Markdown."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from intaglio.builds.manifest import content_key
from intaglio_client.bench.caches import cache_lines
from intaglio_client.bench.exports import Sample
from intaglio_client.bench.figures import (
    STAGES,
    WAITING,
    fitted_line,
    percentile,
    percentiles,
    sent_rate,
    stage_means,
    throughput,
)
from intaglio_client.bench.measure import Measured, Result
from intaglio_client.bench.workload import Workload

__all__ = [
    "HEADER",
    "MEMORY",
    "MIB",
    "SCHEMA",
    "cells_of",
    "data_of",
    "growth_of",
    "growth_of_memory",
    "notes_of",
    "page_of",
    "samples_in",
]

SCHEMA: Final = 1
HEADER: Final = ("load", "value", "requests", "a second", "p50 s", "p90 s", "p95 s", "p99 s", "")
MIB: Final = 2**20
MEMORY: Final = {"host_bytes": "server's processes", "card_bytes": "card"}
"""Places of memory, in words."""
_UNITS: Final = {"closed": "under way", "streaming": "under way", "open": "a second"}
_MLPERF: Final = (
    "The scenarios have MLPerf's names and settings, and are no MLPerf results: those need LoadGen, its 5000 "
    "prompts, its accuracy checks (FID, CLIP score), and runs of at least ten minutes."
)
_COUNT_WINDOWS: Final = (
    "perf_analyzer {version} cannot stop after a number of requests. It measured three windows of a third of "
    "them each (count_windows), whatever they showed."
)


def data_of(measured: Measured, workload: Workload) -> dict[str, Any]:
    """Everything that was found, as JSON."""
    loads = [_load_data(result) for result in measured.results]
    return {
        "schema": SCHEMA,
        "workload": {
            "name": workload.name,
            "about": workload.about,
            "digest": content_key(workload.model_dump(mode="json")),
        },
        "machine": measured.machine,
        "served": {"url": measured.served.url, **measured.served.model},
        "perf_analyzer": {"version": measured.tool.version, "mode": measured.tool.mode},
        "loads": loads,
    }


def _load_data(result: Result) -> dict[str, Any]:
    run = result.run
    found: dict[str, Any] = {
        "name": run.name,
        "load": run.load,
        "kind": run.kind,
        "vary": run.vary,
        "value": run.value,
        "shown_value": run.shown_value,
        "requests": run.requests,
        "warm_up": run.warm_up,
        "digest": run.digest(),
        "failed": result.failed,
        "caches": cache_lines(run),
        "samples": [dataclasses.asdict(sample) for sample in result.samples],
    }
    if result.samples:
        found |= _figures(result.samples)
    if result.memory is not None:
        found["memory"] = dataclasses.asdict(result.memory)
    if run.scenario is not None:
        found["scenario"] = _scenario(result)
    return found


def _figures(samples: Sequence[Sample]) -> dict[str, Any]:
    seconds = [sample.seconds for sample in samples]
    kinds = sorted({sample.kind for sample in samples})
    found: dict[str, Any] = {
        "throughput": throughput(samples),
        "sent_rate": sent_rate(samples),
        "latency": {"mean": statistics.fmean(seconds), "max": max(seconds), **percentiles(seconds)},
        "stages": stage_means(samples),
        "kinds": {
            kind: percentiles([sample.seconds for sample in samples if sample.kind == kind]) for kind in kinds
        },
    }
    for name in ("first_event", "first_preview"):
        times = [value for sample in samples if (value := getattr(sample, name)) is not None]
        if times:
            found[name] = percentiles(times)
    return found


def _scenario(result: Result) -> dict[str, Any]:
    """The figure that MLPerf takes of the scenario."""
    run, samples = result.run, result.samples
    found: dict[str, Any] = {"name": run.scenario}
    if not samples:
        return found
    seconds = [sample.seconds for sample in samples]
    match run.scenario:
        case "SingleStream":
            return {**found, "figure": "90th percentile latency", "seconds": percentile(seconds, 90)}
        case "Offline":
            whole = max(sample.sent + sample.seconds for sample in samples)
            return {**found, "figure": "pictures a second", "rate": len(samples) / whole}
    tail = percentile(seconds, 99)
    reached = None if run.latency_limit is None else tail <= run.latency_limit
    limits = {"limit": run.latency_limit, "reached": reached}
    # Of fewer, nearest rank takes the longest.
    figure = "99th percentile latency" if len(seconds) >= 100 else f"longest of {len(seconds)} latencies"
    return {**found, "figure": figure, "rate": run.value, "seconds": tail, **limits}


def samples_in(load: Mapping[str, Any]) -> list[Sample]:
    """The samples of a load of `data_of`."""
    return [Sample(**sample) for sample in load["samples"]]


def cells_of(data: Mapping[str, Any]) -> list[list[str]]:
    """One row a load, below `HEADER`."""
    rows = []
    for load in data["loads"]:
        unit = _UNITS.get(load["kind"], str(load["vary"]))
        row = [load["load"], f"{load['shown_value']} {unit}", str(load["requests"])]
        if load["failed"]:
            rows.append([*row, "", "", "", "", "", f"failed: {load['failed']}"])
            continue
        latency = load["latency"]
        tails = [f"{latency[name]:.3f}" if name in latency else "" for name in ("p50", "p90", "p95", "p99")]
        rows.append([*row, f"{load['throughput']:.3f}", *tails, _remark(load)])
    return rows


def _remark(load: Mapping[str, Any]) -> str:
    parts = []
    for name, shown in (("first_event", "first event"), ("first_preview", "first preview")):
        if name in load:
            parts.append(f"{shown} p50 {load[name]['p50']:.3f} s")
    scenario = load.get("scenario")
    if scenario is not None:
        value = (
            f"{scenario['seconds']:.3f} s" if "seconds" in scenario else f"{scenario['rate']:.3f} a second"
        )
        limit = scenario.get("limit")
        held = "" if limit is None else f" ({'within' if scenario['reached'] else 'above'} {limit:g} s)"
        parts.append(f"{scenario['name']}: {scenario['figure']} {value}{held}")
    if load["kind"] == "open" and load["throughput"] < 0.9 * load["value"]:
        parts.append("the server does not keep up")
    return "; ".join(parts)


def growth_of(data: Mapping[str, Any]) -> dict[str, dict[float, float]]:
    """For every growth load value -> median latency in seconds."""
    return _growing(data, lambda load: float(load["latency"]["p50"]))


def growth_of_memory(data: Mapping[str, Any], place: str) -> dict[str, dict[float, float]]:
    """For every growth load value -> the most bytes that the server held at `place` (`host_bytes`,
    `card_bytes`); empty where it was not looked at.
    """
    return _growing(data, lambda load: (load.get("memory") or {}).get(place))


def _growing(
    data: Mapping[str, Any], figure_of: Callable[[Mapping[str, Any]], float | None]
) -> dict[str, dict[float, float]]:
    found: dict[str, dict[float, float]] = {}
    for load in data["loads"]:
        if load["kind"] == "growth" and not load["failed"]:
            figure = figure_of(load)
            if figure is not None:
                found.setdefault(load["load"], {})[load["value"]] = float(figure)
    return found


def notes_of(data: Mapping[str, Any]) -> list[str]:
    """What a reader must know beside the table."""
    notes = []
    tool = data["perf_analyzer"]
    if tool["mode"] == "count_windows":
        notes.append(_COUNT_WINDOWS.format(**tool))
    if any("scenario" in load for load in data["loads"]):
        notes.append(_MLPERF)
    if not any(load.get("stages") for load in data["loads"]):
        notes.append("The answers in perf_analyzer's export have no `timings`, so there are no stages.")
    for name, points in growth_of(data).items():
        line = fitted_line(points)
        if line is not None:
            shape = f"{line.intercept:.3f} s + {line.slope:.3g} s for each, within {100 * line.largest:.1f} %"
            notes.append(f"{name} grows as {shape} of its largest value.")
    for place, where in MEMORY.items():
        for name, points in growth_of_memory(data, place).items():
            line = fitted_line(points)
            if line is not None:
                each = f"{line.intercept / MIB:.0f} MiB + {line.slope / MIB:.3g} MiB for each"
                rest = max(map(abs, line.residuals.values())) / MIB
                notes.append(f"{name}, memory of the {where}: {each}, within {rest:.0f} MiB.")
    return notes


def page_of(data: Mapping[str, Any], plots: Sequence[str]) -> str:
    """The report in Markdown, which shows the files `plots`."""
    machine, served, tool = data["machine"], data["served"], data["perf_analyzer"]
    card = machine["card"]
    where = f"{card['name']}, driver {card['driver']}" if card else "no card"
    changed = ", with changes" if machine["changed"] else ""
    commit = f"commit {machine['commit'][:12]}{changed}" if machine["commit"] else "no checkout"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"# {data['workload']['name']}: {data['workload']['about']}",
        "",
        f"Client: {where}; {machine['processor']}, {machine['cores']} cores; {commit}; {versions}.",
        f"Server: {served['url']}, {served.get('runtime')} {served.get('precision')}, build "
        f"{str(served.get('build'))[:12]}. perf_analyzer {tool['version']}, {tool['mode']}. "
        f"Workload {data['workload']['digest'][:12]}.",
        "",
        *_table(HEADER, cells_of(data)),
        "",
        *(f"* {note}" for note in notes_of(data)),
        "",
        *_stage_lines(data),
        *(f"![{plot}]({plot})\n" for plot in plots),
        "## What the caches save",
        "",
    ]
    lines += [f"* {', '.join(names)}: {line}" for line, names in _loads_by_cache_line(data).items()]
    return "\n".join(lines) + "\n"


def _loads_by_cache_line(data: Mapping[str, Any]) -> dict[str, list[str]]:
    """What is to be said of caches, each once, and the loads that it holds for."""
    found: dict[str, list[str]] = {}
    for load in data["loads"]:
        for line in load["caches"]:
            found.setdefault(line, []).append(load["name"])
    return {
        line: ["all loads"] if len(names) == len(data["loads"]) else names for line, names in found.items()
    }


def _stage_lines(data: Mapping[str, Any]) -> list[str]:
    loads = [load for load in data["loads"] if load.get("stages")]
    if not loads:
        return []
    names = {name for load in loads for name in load["stages"]}
    ordered = [name for name in (WAITING, *STAGES) if name in names]
    ordered += sorted(names - set(ordered))
    rows = [[load["name"], *(f"{load['stages'].get(name, 0.0):.3f}" for name in ordered)] for load in loads]
    about = (
        f"Mean seconds of a request; `{WAITING}` is the queue, Triton between its stages, and the network."
    )
    return ["## Stages", "", about, "", *_table(["load", *ordered], rows), ""]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows),
    ]
