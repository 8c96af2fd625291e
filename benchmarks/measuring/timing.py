"""Seconds: a stopwatch with named laps, passes that a device runs asynchronously, medians and quartiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["PASSES", "Stopwatch", "spread", "time_passes"]

_SAMPLES: Final = 7
_RUNS: Final = 5
"""Passes a sample. They are enqueued together and waited for once."""
PASSES: Final = (_SAMPLES + 1) * _RUNS
"""How often `time_passes` runs a pass."""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of seconds, and how many there were.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("nothing was measured")
    if len(values) == 1:
        return {"median": values[0], "low": values[0], "high": values[0], "n": 1}
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high, "n": len(values)}


def time_passes(run: Callable[[], object], synchronize: Callable[[], object]) -> dict[str, float]:
    """Seconds of one pass, of passes that follow one another without a pause. `run` enqueues a pass."""
    samples = []
    for _ in range(_SAMPLES + 1):
        started = time.perf_counter()
        for _ in range(_RUNS):
            run()
        synchronize()
        samples.append((time.perf_counter() - started) / _RUNS)
    # The first sample pays for everything that is set up when it is first needed.
    return spread(samples[1:])


@dataclass
class Stopwatch:
    """Seconds by name. Every lap is kept."""

    laps: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        started = time.perf_counter()
        yield
        self.laps.setdefault(name, []).append(time.perf_counter() - started)

    def spreads(self) -> dict[str, Any]:
        """`spread` of every name."""
        return {name: spread(values) for name, values in self.laps.items()}
