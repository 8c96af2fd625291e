from __future__ import annotations

import math
import random

import pytest

from intaglio_client.bench.gate import judge_turns
from intaglio_client.bench.turns import Turn


def turns(*ratios: float, equal: int = 2) -> list[Turn]:
    return [Turn((2.0, 2.0 * ratio), equal, 2) for ratio in ratios]


def test_every_turn_slower_by_a_tenth_is_slower() -> None:
    judged = judge_turns(turns(*[1.10, 1.12, 1.09] * 4), measure="cpu")
    assert judged.verdict == "slower"
    assert judged.summary().startswith("slower: processor seconds B / A 1.100 (1.090 to 1.120)")
    assert judged.data()["turns"][0] == [2.0, pytest.approx(2.2)]


@pytest.mark.parametrize(("true", "verdict"), [(1.15, "slower"), (1.0, "no difference shown")])
def test_noise_as_of_a_busy_machine_hides_nothing_and_invents_nothing(true: float, verdict: str) -> None:
    """Ten comparisons of 24 turns; each ratio is off by about a twentieth."""
    drawn = random.Random(20261130)
    for _ in range(10):
        noisy = [true * math.exp(drawn.gauss(0, 0.05)) for _ in range(24)]
        assert judge_turns(turns(*noisy), measure="cpu").verdict == verdict


def test_a_difference_within_the_tolerance_is_none() -> None:
    assert judge_turns(turns(*[1.02] * 12), measure="cpu").verdict == "no difference shown"
    assert judge_turns(turns(*[1.02] * 12), measure="cpu", tolerance=0.01).verdict == "slower"


def test_one_turn_that_something_else_slowed_changes_nothing() -> None:
    judged = judge_turns(turns(*[1.0] * 11, 3.0), measure="wall")
    assert judged.verdict == "no difference shown"
    assert judged.interval.high == 1.0


def test_pictures_that_differ_are_counted() -> None:
    judged = judge_turns(turns(*[1.0] * 8, equal=1), measure="cpu")
    assert (judged.differing, judged.pictures) == (8, 16)
    assert "8 of 16 pictures differ" in judged.summary()


def test_too_few_turns_are_refused() -> None:
    with pytest.raises(ValueError, match="take at least 8"):
        judge_turns(turns(*[1.0] * 7), measure="cpu")
