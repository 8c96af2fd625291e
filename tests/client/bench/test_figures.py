from __future__ import annotations

import pytest

from intaglio_client.bench.exports import Sample
from intaglio_client.bench.figures import (
    WAITING,
    fitted_line,
    percentile,
    percentiles,
    sent_rate,
    stage_means,
    throughput,
)


def sample(sent: float, seconds: float, **stages: float) -> Sample:
    return Sample(place=0, kind="x", sent=sent, seconds=seconds, stages=stages)


def test_percentiles_are_values_and_only_those_that_enough_values_have() -> None:
    values = [float(value) for value in range(1, 11)]
    assert percentile(values, 90) == 9.0
    assert percentiles(values) == {"p50": 5.0, "p90": 9.0}
    assert percentiles([3.0]) == {"p50": 3.0}
    assert set(percentiles([float(value) for value in range(100)])) == {"p50", "p90", "p95", "p99"}


def test_throughput_counts_from_the_first_answer() -> None:
    """Two under way, each answered every second in turn: two a second, however few are measured."""
    alternating = [sample(0.0, 0.5), sample(0.0, 1.0), sample(0.5, 1.0), sample(1.0, 1.0)]
    assert throughput(alternating) == pytest.approx(2.0)
    assert throughput([sample(0.0, 0.25)]) == 4.0
    assert sent_rate([sample(0.0, 1.0), sample(2.0, 1.0)]) == 0.5
    assert sent_rate([sample(0.0, 1.0)]) is None


def test_stages_and_waiting_add_up_to_the_latency() -> None:
    samples = [sample(0, 1.0, denoise=0.5, vae=0.1), sample(0, 2.0, denoise=0.5, vae=0.1, lora_swap=0.4)]
    found = stage_means(samples)
    assert list(found) == [WAITING, "lora_swap", "denoise", "vae"]
    assert found["lora_swap"] == pytest.approx(0.2)
    assert sum(found.values()) == pytest.approx(1.5)
    assert stage_means([sample(0, 1.0)]) == {}


def test_a_line_and_how_far_points_are_from_it() -> None:
    line = fitted_line({1.0: 3.0, 2.0: 5.0, 4.0: 9.0})
    assert line is not None
    assert (line.intercept, line.slope) == (pytest.approx(1.0), pytest.approx(2.0))
    assert line.largest < 1e-9
    bent = fitted_line({1.0: 1.0, 2.0: 4.0, 3.0: 9.0})
    assert bent is not None
    assert bent.largest > 0.05
    assert fitted_line({1.0: 1.0, 2.0: 2.0}) is None
