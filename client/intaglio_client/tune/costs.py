"""What a setting costs beside the baseline, from seconds that other work on the machine has disturbed.

Seconds are fitted as a product: of a factor for each scene in each run (its size, its controls, what the
machine did meanwhile) and a factor for each setting. Medians of logarithms make the fit, in turn over
settings and over scenes: Tukey's median polish, "Exploratory Data Analysis", 1977. So every picture of a
scene says how busy the machine was, and not only that of the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from intaglio_client.tune.pairs import Figure, median_error

__all__ = ["relative_costs"]

_ROUNDS: Final = 30
"""Far more than a table of this kind needs until nothing changes."""


def relative_costs(tables: Sequence[Mapping[str, float]], baseline: str) -> dict[str, Figure]:
    """Seconds of every setting over those of `baseline`.

    Args:
        tables: seconds by setting, one table a scene and run. Each has the baseline; others may be missing.
    """
    names = list(dict.fromkeys(name for table in tables for name in table))
    residuals = np.array([[math.log(table.get(name, math.nan)) for name in names] for table in tables])
    costs = np.zeros(len(names))
    for _ in range(_ROUNDS):
        residuals -= np.nanmedian(residuals, axis=1, keepdims=True)
        medians = np.nanmedian(residuals, axis=0)
        residuals -= medians
        costs += medians
    errors = [median_error(column[~np.isnan(column)].tolist()) for column in residuals.T]
    first = names.index(baseline)
    found = {}
    for index, name in enumerate(names):
        ratio = math.exp(costs[index] - costs[first])
        both = 0.0 if index == first else math.hypot(errors[index], errors[first])
        count = int((~np.isnan(residuals[:, index])).sum())
        found[name] = Figure(ratio, ratio * both, count)
    return found
