"""What each policy promises."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest

from benchmarks.replicas import policies
from benchmarks.replicas.policies import LeastWaiting, RoundRobin, Sticky, policy_of
from tests.docker.envoy import cluster_of, configuration

IDLE = [0] * 10


def owners(replicas: int, sets: int = 2_000) -> list[int]:
    sticky = Sticky(replicas, factor=math.inf)
    return [sticky.choose(loras, [0] * replicas, ()) for loras in range(sets)]


def test_a_new_replica_takes_its_share_and_moves_little_else() -> None:
    """As Envoy's ring, this one has fewer places for each replica when there are more of them."""
    before, after = owners(9), owners(10)
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert Counter(moved)[9] == pytest.approx(200, rel=0.25)
    assert len(moved) < 2 * 200
    assert max(Counter(after).values()) < 1.3 * 200


def test_a_popular_set_spreads_as_far_as_the_bound_says() -> None:
    """50 requests of one set under way: nobody has more than 1.25 times the mean, rounded up, and one."""
    sticky, active = Sticky(10, factor=1.25), [0] * 10
    for _ in range(50):
        active[sticky.choose(7, active, ())] += 1
    assert max(active) <= math.ceil(1.25 * 51 / 10) + 1
    assert sum(number > 0 for number in active) < 10, "it does not use more replicas than it needs"


def test_it_stays_with_its_owner_while_that_has_room_and_comes_back() -> None:
    sticky = Sticky(10, factor=1.25)
    owner = sticky.choose(3, IDLE, ())
    busy = [20 if one == owner else 1 for one in range(10)]
    other = sticky.choose(3, busy, ())
    assert other != owner
    assert sticky.choose(3, busy, ()) == other, "the same one each time"
    assert sticky.choose(3, IDLE, ()) == owner
    assert sticky.choose(3, IDLE, {owner}) != owner


def test_round_robin_asks_all_in_turn_and_skips_who_refused() -> None:
    policy = RoundRobin(3)
    assert [policy.choose(0, [9, 0, 0], ()) for _ in range(4)] == [0, 1, 2, 0]
    assert policy.choose(0, [0, 0, 0], {1}) == 2


def test_least_waiting_asks_the_idlest() -> None:
    policy = LeastWaiting(random.Random(0))
    assert {policy.choose(0, [2, 1, 3, 1], ()) for _ in range(50)} == {1, 3}
    assert policy.choose(0, [2, 1, 3, 1], {1, 3}) == 0


def test_policies_have_names() -> None:
    assert isinstance(policy_of("sticky inf", 3, random.Random(0)), Sticky)
    with pytest.raises(ValueError, match="no policy 'random'"):
        policy_of("random", 3, random.Random(0))


def test_ring_and_factor_are_envoys() -> None:
    (policy,) = cluster_of(configuration())["load_balancing_policy"]["policies"]
    ring: Any = policy["typed_extension_config"]["typed_config"]
    assert ring["minimum_ring_size"] == policies.RING_SIZE
    assert ring["consistent_hashing_lb_config"]["hash_balance_factor"] == 100 * policies.FACTOR
