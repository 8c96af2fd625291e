"""The simulation against closed formulas, and what policies promise."""

from __future__ import annotations

import random
import statistics
from typing import Final

import pytest

from benchmarks.replicas.costs import Costs
from benchmarks.replicas.policies import LeastWaiting, RoundRobin
from benchmarks.replicas.simulation import Case, Outcome, popularities, simulate

FREE: Final = Costs(picture=1.0, swap=0.0)
DEAR: Final = Costs(picture=1.0, swap=2.0)


def outcome_of(case: Case, costs: Costs, *, least: bool = False) -> Outcome:
    policy = LeastWaiting(random.Random(0)) if least else RoundRobin(case.replicas)
    return simulate(case, costs, policy)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_replica_without_swaps_is_a_queue_of_m_d_1(load: float) -> None:
    """Pollaczek and Khinchin: with one service time the mean wait is load / (2 (1 - load)) of it."""
    case = Case(replicas=1, loras=1, load=load, requests=60_000, queue_size=0)
    waits = outcome_of(case, FREE).waits
    assert statistics.fmean(waits) == pytest.approx(load / (2 * (1 - load)), rel=0.05)


def test_rare_requests_swap_unless_the_one_before_had_their_set() -> None:
    """Two requests in a row have the same set with the sum of the squares of the popularities."""
    shares = popularities(10, 1.0)
    outcome = outcome_of(Case(replicas=1, loras=10, load=0.01, requests=40_000), DEAR)
    same = sum(share**2 for share in shares)
    assert outcome.swaps / outcome.drawn == pytest.approx(1 - same, abs=0.01)
    assert min(outcome.waits) == 0.0
    assert statistics.median(outcome.waits) == DEAR.swap, "nobody waits for others"


def test_full_queues_refuse_what_the_card_cannot_draw() -> None:
    """Three times as many requests come as can be drawn, so a third is drawn and the card never rests."""
    found = outcome_of(Case(replicas=1, loras=1, load=3.0, requests=6_000, queue_size=5), FREE)
    assert found.drawn / (found.drawn + found.refused) == pytest.approx(1 / 3, abs=0.02)
    assert max(found.waits) <= 6 * FREE.picture, "one is drawn and five wait"


def test_a_full_replica_hands_requests_on() -> None:
    one = outcome_of(Case(replicas=1, loras=1, load=0.9, requests=6_000, queue_size=1), FREE)
    ten = outcome_of(Case(replicas=10, loras=1, load=0.9, requests=6_000, queue_size=1), FREE)
    assert one.refused > 0.1 * one.drawn
    assert ten.refused < 0.03 * ten.drawn


def test_the_queue_groups_sets_and_no_more_than_its_bound_allows() -> None:
    case = {"replicas": 1, "loras": 10, "load": 0.45, "requests": 8_000, "queue_size": 0}
    costs = Costs(picture=1.0, swap=1.0)
    swaps = {
        bound: outcome_of(Case(**case, overtakes=bound), costs).swaps  # type: ignore[arg-type]
        for bound in (0, 1, 8)
    }
    assert swaps[0] > swaps[1] > swaps[8]


def test_files_are_read_again_where_others_took_their_place() -> None:
    case = Case(replicas=1, loras=2, load=0.01, requests=2_000, zipf=0.0)
    both = outcome_of(case, Costs(picture=1.0, swap=0.5, reading=3.0, kept=2))
    one = outcome_of(case, Costs(picture=1.0, swap=0.5, reading=3.0, kept=1))
    assert both.reads == 0, "both were read among the requests that are not counted"
    assert one.reads == one.swaps == both.swaps
    assert max(one.waits) >= 3.5


def test_equal_cases_give_equal_outcomes() -> None:
    case = Case(replicas=3, loras=10, load=0.6, requests=500)
    assert outcome_of(case, DEAR, least=True) == outcome_of(case, DEAR, least=True)
    other = Case(replicas=3, loras=10, load=0.6, requests=500, seed=1)
    assert outcome_of(case, DEAR).waits != outcome_of(other, DEAR).waits


def test_popularities_follow_zipf() -> None:
    shares = popularities(100, 1.0)
    assert sum(shares) == pytest.approx(1)
    assert shares[0] / shares[9] == pytest.approx(10)
    assert popularities(4, 0.0) == [0.25] * 4
