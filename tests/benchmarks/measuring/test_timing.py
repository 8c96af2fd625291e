"""Medians and quartiles, laps, and passes that are waited for together."""

from __future__ import annotations

import pytest

from benchmarks.measuring.timing import PASSES, Stopwatch, spread, time_passes


def test_median_and_quartiles() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.5, "high": 2.5, "n": 3}
    assert spread([4.0]) == {"median": 4.0, "low": 4.0, "high": 4.0, "n": 1}
    with pytest.raises(ValueError, match="nothing was measured"):
        spread([])


def test_every_lap_is_kept_under_its_name() -> None:
    watch = Stopwatch()
    for name in ("one", "other", "one"):
        with watch.lap(name):
            pass
    assert {name: found["n"] for name, found in watch.spreads().items()} == {"one": 2, "other": 1}


def test_passes_are_enqueued_together_and_the_first_sample_is_thrown_away() -> None:
    calls: list[str] = []
    found = time_passes(lambda: calls.append("run"), lambda: calls.append("wait"))
    waits = calls.count("wait")
    assert calls.count("run") == PASSES
    assert calls == (["run"] * (PASSES // waits) + ["wait"]) * waits
    assert found["n"] == waits - 1
