"""Figures of a run: percentiles, throughput, stages; and how a figure grows with a value."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from intaglio_client.bench.exports import Sample

__all__ = [
    "PERCENTILES",
    "STAGES",
    "WAITING",
    "Line",
    "fitted_line",
    "percentile",
    "percentiles",
    "sent_rate",
    "stage_means",
    "throughput",
]

PERCENTILES: Final = (50, 90, 95, 99)
WAITING: Final = "waiting"
"""What no stage measured: the queue, Triton between its stages, and the network."""
STAGES: Final = (
    "preprocess",
    "lora_swap",
    "controlnet_swap",
    "text_encoders",
    "denoise",
    "vae",
    "postprocess",
)
"""In the order in which a request passes them; a stage that is not listed comes after them."""


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of 100 values do not exceed (nearest rank), as MLPerf's."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Those of `PERCENTILES` that so few values have: p95 needs 20, p99 needs 100."""
    enough = [percent for percent in PERCENTILES if len(values) * (100 - percent) >= 100 or percent == 50]
    return {f"p{percent}": percentile(values, percent) for percent in enough}


def throughput(samples: Sequence[Sample]) -> float:
    """Requests a second: how many were answered after the first one, over the time since its answer.

    While the first is under way others are, too, so the time before its answer would count them twice. A
    single request has its own time alone.
    """
    ends = sorted(sample.sent + sample.seconds for sample in samples)
    if len(ends) == 1 or ends[-1] == ends[0]:
        return len(ends) / (ends[-1] - min(sample.sent for sample in samples))
    return (len(ends) - 1) / (ends[-1] - ends[0])


def sent_rate(samples: Sequence[Sample]) -> float | None:
    """Requests a second, as they were sent; None of one request."""
    times = sorted(sample.sent for sample in samples)
    if len(times) < 2 or times[-1] == times[0]:
        return None
    return (len(times) - 1) / (times[-1] - times[0])


def stage_means(samples: Sequence[Sample]) -> dict[str, float]:
    """Mean seconds of every stage, and of `WAITING`, which add up to the mean latency; empty where the server
    told no stages.
    """
    known = [sample for sample in samples if sample.stages]
    if not known:
        return {}
    names = {name for sample in known for name in sample.stages}
    ordered = [name for name in STAGES if name in names] + sorted(names - set(STAGES))
    found = {name: statistics.fmean(one.stages.get(name, 0.0) for one in known) for name in ordered}
    rest = statistics.fmean(one.seconds - sum(one.stages.values()) for one in known)
    return {WAITING: max(rest, 0.0), **found}


@dataclass(frozen=True, slots=True)
class Line:
    """A least-squares line through medians, and how far the points are from it."""

    intercept: float
    slope: float
    residuals: Mapping[float, float]
    """Value: how many seconds its median is above the line."""

    @property
    def largest(self) -> float:
        """The largest residual's size, over the largest value on the line."""
        highest = max(self.intercept + self.slope * value for value in self.residuals)
        return max(map(abs, self.residuals.values())) / highest if highest > 0 else math.inf


def fitted_line(points: Mapping[float, float]) -> Line | None:
    """The line through `points`; None of fewer than three, which say nothing about a line."""
    if len(points) < 3:
        return None
    x, y = np.array(list(points)), np.array(list(points.values()))
    slope, intercept = np.polyfit(x, y, 1)
    rest = y - (intercept + slope * x)
    residuals = {value: float(one) for value, one in zip(points, rest, strict=True)}
    return Line(float(intercept), float(slope), residuals)
