"""The statistics on samples whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from intaglio_client.bench.intervals import (
    bootstrap_interval,
    fewest_pairs,
    median_interval,
    verdict_of,
)


def ratios(drawn: np.random.Generator, count: int, *, effect: float, noise: float) -> list[float]:
    """Ratios with a log-normal noise, and every tenth with other work on the machine beside it."""
    found = effect * np.exp(noise * drawn.standard_normal(count))
    found[drawn.random(count) < 0.1] *= 1.5
    return found.tolist()


@pytest.mark.parametrize("count", [8, 12, 20])
def test_the_exact_interval_holds_the_true_median_as_often_as_it_says(count: int) -> None:
    drawn = np.random.default_rng(count)
    inside = 0
    for _ in range(600):
        found = median_interval(np.exp(0.1 * drawn.standard_normal(count)).tolist(), confidence=0.95)
        inside += found.low <= 1.0 <= found.high
        assert found.confidence >= 0.95
    assert inside / 600 >= 0.93


def test_the_bootstrap_holds_the_true_median_in_nine_of_ten() -> None:
    drawn = np.random.default_rng(5)
    inside = 0
    for _ in range(200):
        found = bootstrap_interval(np.exp(0.1 * drawn.standard_normal(20)).tolist())
        inside += found.low <= 1.0 <= found.high
    assert inside / 200 >= 0.88


def test_neighbours_that_wait_together_widen_the_bootstrap() -> None:
    """Forty pairs of which five neighbours have one value each say less than forty that are independent."""
    drawn = np.random.default_rng(6)
    narrow = wide = 0.0
    for _ in range(50):
        alone = 0.1 * drawn.standard_normal(40)
        together = np.repeat(0.1 * drawn.standard_normal(8), 5)
        one, other = (bootstrap_interval(np.exp(found).tolist()) for found in (alone, together))
        narrow += one.high - one.low
        wide += other.high - other.low
    assert wide > 1.15 * narrow


def test_pairs_that_are_too_few_or_impossible_are_refused() -> None:
    assert (fewest_pairs(0.95), fewest_pairs(0.99)) == (6, 8)
    with pytest.raises(ValueError, match="5 pairs are too few for 95% confidence; take at least 6"):
        median_interval([1.0] * 5)
    with pytest.raises(ValueError, match="too few for a bootstrap"):
        bootstrap_interval([1.0] * 7)
    with pytest.raises(ValueError, match="not above 0"):
        median_interval([1.0] * 7 + [0.0])


def test_a_verdict_needs_the_whole_interval() -> None:
    surely = median_interval([1.1] * 12)
    assert verdict_of(surely) == "slower"
    assert verdict_of(surely, tolerance=0.2) == "no difference shown"
    assert verdict_of(median_interval([0.9] * 12)) == "faster"
    assert verdict_of(median_interval([0.9, 1.1] * 6)) == "no difference shown"


def test_a_slowdown_of_a_tenth_is_seen_through_noise_and_none_is_seen_where_there_is_none() -> None:
    drawn = np.random.default_rng(7)
    caught = false = 0
    for _ in range(300):
        slow = ratios(drawn, 12, effect=1.13, noise=0.02)
        clean = ratios(drawn, 12, effect=1.0, noise=0.02)
        caught += verdict_of(median_interval(slow, confidence=0.99), tolerance=0.03) == "slower"
        false += verdict_of(median_interval(clean, confidence=0.99), tolerance=0.03) == "slower"
    assert caught >= 297
    assert false == 0
