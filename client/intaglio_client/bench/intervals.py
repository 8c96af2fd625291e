"""Confidence intervals of ratios, and the verdict that one allows.

Two things are compared pair by pair: what both have in common (the request, the moment) then cancels. Times
have long tails, so the figure is the median of the ratios.

* `bootstrap_interval` resamples blocks of neighbouring pairs (Künsch, Ann. Statist. 17, 1989): a request that
  waits makes its neighbours wait, so they are not independent.
* `median_interval` is exact for independent pairs and assumes nothing of their distribution: the bounds are
  ratios themselves, by the binomial law of how many lie below the median.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

__all__ = [
    "FEWEST_PAIRS",
    "Interval",
    "Verdict",
    "bootstrap_interval",
    "fewest_pairs",
    "median_interval",
    "verdict_of",
]

Verdict = Literal["faster", "slower", "no difference shown"]
FEWEST_PAIRS: Final = 8
"""A bootstrap of fewer pairs says nothing."""
_RESAMPLES: Final = 4000
_SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Interval:
    """A median of ratios B / A, and between which bounds the true one lies with this confidence."""

    ratio: float
    low: float
    high: float
    confidence: float
    pairs: int

    def shown(self) -> str:
        """`1.042 (1.013 to 1.071)`."""
        return f"{self.ratio:.3f} ({self.low:.3f} to {self.high:.3f})"


def verdict_of(interval: Interval, *, tolerance: float = 0.0) -> Verdict:
    """`slower` where the whole interval is above 1 + `tolerance`, `faster` where it is below 1 / that."""
    bound = 1 + tolerance
    if interval.low > bound:
        return "slower"
    return "faster" if interval.high < 1 / bound else "no difference shown"


def bootstrap_interval(ratios: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """By resampled blocks of neighbours. The blocks have about the cube root of the number of pairs.

    Raises:
        ValueError: fewer than `FEWEST_PAIRS`, or a ratio that is not above 0.
    """
    logs = _logs(ratios)
    count = len(logs)
    if count < FEWEST_PAIRS:
        raise ValueError(f"{count} pairs are too few for a bootstrap; take at least {FEWEST_PAIRS}")
    block = max(1, round(count ** (1 / 3)))
    drawn = np.random.default_rng(_SEED)
    starts = drawn.integers(0, count, size=(_RESAMPLES, math.ceil(count / block)))
    # Blocks go on at the beginning, so that every pair is as likely as any other.
    places = (starts[:, :, None] + np.arange(block)) % count
    medians = np.median(logs[places.reshape(_RESAMPLES, -1)[:, :count]], axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return Interval(_exp(np.median(logs)), _exp(low), _exp(high), confidence, count)


def median_interval(ratios: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Between two of the sorted ratios; its true confidence is at least the one that is asked for.

    Raises:
        ValueError: too few pairs for the confidence (`fewest_pairs`), or a ratio that is not above 0.
    """
    logs = np.sort(_logs(ratios))
    count = len(logs)
    if count < fewest_pairs(confidence):
        least = fewest_pairs(confidence)
        raise ValueError(f"{count} pairs are too few for {confidence:.0%} confidence; take at least {least}")
    tail = (1 - confidence) / 2
    rank, below = 0, 0.5**count
    while below + math.comb(count, rank + 1) * 0.5**count <= tail:
        rank += 1
        below += math.comb(count, rank) * 0.5**count
    return Interval(_exp(np.median(logs)), _exp(logs[rank]), _exp(logs[-1 - rank]), 1 - 2 * below, count)


def fewest_pairs(confidence: float) -> int:
    """Of `median_interval`: 6 for 95 %, 8 for 99 %."""
    return math.ceil(1 - math.log2(1 - confidence))


def _logs(ratios: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if not all(ratio > 0 and math.isfinite(ratio) for ratio in ratios):
        raise ValueError("a ratio is not above 0")
    return np.log(np.array(ratios, dtype=np.float64))


def _exp(value: np.floating[Any]) -> float:
    return float(np.exp(value))
