"""Figures of scenes and of pairs of scenes, each with one standard error."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Figure", "mean_figure", "median_error", "median_figure", "paired_difference", "paired_ratio"]

_NORMAL_MAD: Final = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_MEDIAN_ERROR: Final = math.sqrt(math.pi / 2)
"""Standard error of the median over that of the mean, of many normal values."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean or a median over `n` scenes and its standard error."""

    value: float
    error: float
    n: int

    def shown(self, digits: int) -> str:
        """`34.7 ± 0.3`."""
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"


def mean_figure(values: Sequence[float]) -> Figure:
    """The mean.

    Raises:
        ValueError: fewer than two values, which have no standard error.
    """
    _check(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Figure(statistics.fmean(values), error, len(values))


def median_figure(values: Sequence[float]) -> Figure:
    """The median. Its error comes from the median absolute deviation: a request that other work on the
    machine slowed is an outlier and not noise about a mean.

    Raises:
        ValueError: fewer than two values.
    """
    _check(values)
    return Figure(statistics.median(values), median_error(values), len(values))


def median_error(values: Sequence[float]) -> float:
    """The standard error of the median of `values`, which are not empty."""
    median = statistics.median(values)
    spread = _NORMAL_MAD * statistics.median(abs(value - median) for value in values)
    return _MEDIAN_ERROR * spread / math.sqrt(len(values))


def paired_difference(values: Sequence[float], others: Sequence[float]) -> Figure:
    """The mean of `values` minus `others`, scene by scene. What makes a scene hard counts in both, so the
    error is smaller than that of two means.
    """
    return mean_figure([one - other for one, other in zip(values, others, strict=True)])


def paired_ratio(values: Sequence[float], others: Sequence[float]) -> Figure:
    """The median of `values` over `others`, scene by scene."""
    return median_figure([one / other for one, other in zip(values, others, strict=True)])


def _check(values: Sequence[float]) -> None:
    if len(values) < 2:
        raise ValueError(f"{len(values)} values have no standard error; at least 2 are needed")
