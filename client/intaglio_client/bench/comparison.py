"""Two reports of one workload: is the second faster, slower, or is no difference shown?

Requests of equal places are pairs: they ask for the same, after the same arrivals. With m loads each interval
has the confidence 1 - 0.05 / m, so the chance of any false verdict in the whole table is 5 % (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from intaglio.errors import ConfigError
from intaglio_client.bench.intervals import (
    FEWEST_PAIRS,
    Interval,
    Verdict,
    bootstrap_interval,
    verdict_of,
)
from intaglio_client.bench.report import samples_in

__all__ = ["HEADER", "Comparison", "Row", "cells_of", "compare_reports", "data_of"]

HEADER: Final = ("load", "latency B / A", "throughput B / A", "pictures", "verdict")
_FALSE_ALARMS: Final = 0.05
_IDENTITY: Final = ("card", "processor", "cores")


@dataclass(frozen=True, slots=True)
class Row:
    """One load of both reports."""

    name: str
    verdict: Verdict | None
    """None where it was not compared."""
    latency: Interval | None = None
    throughput: float | None = None
    equal_pictures: int | None = None
    """How many requests got the same bytes in both; None where a report has no pictures."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All loads, and what a reader must know."""

    rows: Sequence[Row]
    notes: Sequence[str]

    @property
    def slower(self) -> list[str]:
        """The loads that have become slower."""
        return [row.name for row in self.rows if row.verdict == "slower"]


def compare_reports(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """`after` over `before`, load by load.

    Raises:
        ConfigError: they have no load in common.
    """
    first = {load["name"]: load for load in before["loads"]}
    second = {load["name"]: load for load in after["loads"]}
    common = [name for name in first if name in second]
    if not common:
        raise ConfigError("the reports have no load in common; compare two of the same workload")
    confidence = 1 - _FALSE_ALARMS / len(common)
    rows = [_row(first[name], second[name], confidence) for name in common]
    return Comparison(rows, _notes(before, after, first.keys() ^ second.keys()))


def _row(before: Mapping[str, Any], after: Mapping[str, Any], confidence: float) -> Row:
    name = before["name"]
    for report, load in (("A", before), ("B", after)):
        if load["failed"]:
            return Row(name, None, note=f"failed in {report}")
    if before["digest"] != after["digest"]:
        return Row(name, None, note="asks for something else in B")
    pairs = list(zip(samples_in(before), samples_in(after), strict=True))
    if len(pairs) < FEWEST_PAIRS:
        return Row(name, None, note=f"{len(pairs)} requests are too few; take at least {FEWEST_PAIRS}")
    interval = bootstrap_interval([two.seconds / one.seconds for one, two in pairs], confidence=confidence)
    known = all(one.picture and two.picture for one, two in pairs)
    equal = sum(one.picture == two.picture for one, two in pairs) if known else None
    faster = after["throughput"] / before["throughput"]
    return Row(name, verdict_of(interval), interval, faster, equal)


def _notes(before: Mapping[str, Any], after: Mapping[str, Any], single: set[str]) -> list[str]:
    notes = [
        "the reports are of different times: what else a machine did then looks like a difference, too; "
        "`intaglio bench turns` measures two servers in turns"
    ]
    differing = [key for key in _IDENTITY if before["machine"][key] != after["machine"][key]]
    if differing:
        notes.append(f"measured on different machines: {', '.join(differing)}")
    if before["perf_analyzer"] != after["perf_analyzer"]:
        notes.append("measured with different versions of perf_analyzer")
    if single:
        notes.append(f"only in one of the reports: {', '.join(sorted(single))}")
    return notes


def cells_of(comparison: Comparison) -> list[list[str]]:
    """One row a load, below `HEADER`."""
    return [
        [
            row.name,
            row.latency.shown() if row.latency else "",
            f"{row.throughput:.3f}" if row.throughput else "",
            _pictures(row),
            row.verdict or f"not compared: {row.note}",
        ]
        for row in comparison.rows
    ]


def _pictures(row: Row) -> str:
    if row.equal_pictures is None or row.latency is None:
        return ""
    return f"{row.equal_pictures} of {row.latency.pairs} equal"


def data_of(comparison: Comparison) -> dict[str, Any]:
    """For programs."""
    return {
        "loads": [asdict(row) for row in comparison.rows],
        "slower": comparison.slower,
        "notes": list(comparison.notes),
    }
