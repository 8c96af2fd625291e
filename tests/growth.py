"""Memory that a process takes once, and memory that each request leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

__all__ = ["least_growth"]


def least_growth(sizes: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Of each process, the least that it grew by between two of its `sizes` in turn.

    What a process takes once shows in one round only. What every request leaves shows in each of them. So
    this figure has to be small, and what is taken once needs no allowance. The processes must be the same in
    every round.
    """
    for before, after in pairwise(sizes):
        gone, come = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
        assert before.keys() == after.keys(), f"processes that ended: {gone}, that began: {come}"
    return {name: min(after[name] - before[name] for before, after in pairwise(sizes)) for name in sizes[0]}
