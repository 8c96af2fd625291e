"""Which replica gets a request: the next one, the one with the fewest, or the one that LoRAs are hashed to.

A policy knows how many requests each replica has, as a proxy that sees all of them does.
"""

from __future__ import annotations

import bisect
import hashlib
import math
import random
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

__all__ = ["POLICIES", "LeastWaiting", "Policy", "RoundRobin", "Sticky", "policy_of"]

RING_SIZE: Final = 4096
"""Places on the ring of all replicas together, as docker/kubernetes/components/proxy/envoy.yaml has it."""

FACTOR: Final = 1.25
"""`hash_balance_factor` there."""


class Policy(Protocol):
    """Chooses; it may keep what it needs for the next choice."""

    def choose(self, loras: int, active: Sequence[int], tried: Collection[int]) -> int:
        """Index of the replica for a request with the set `loras`. `active[i]` requests are at replica i;
        those `tried` have refused it.
        """
        ...


class RoundRobin:
    """One after another."""

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas
        self._next = 0

    def choose(self, loras: int, active: Sequence[int], tried: Collection[int]) -> int:
        """The next one that has not refused it."""
        for _ in range(self._replicas):
            chosen = self._next % self._replicas
            self._next = chosen + 1
            if chosen not in tried:
                break
        return chosen


class LeastWaiting:
    """The one with the fewest requests; of equal ones any."""

    def __init__(self, random_: random.Random) -> None:
        self._random = random_

    def choose(self, loras: int, active: Sequence[int], tried: Collection[int]) -> int:
        """The idlest that has not refused it."""
        open_ = [one for one in range(len(active)) if one not in tried]
        fewest = min(active[one] for one in open_)
        return self._random.choice([one for one in open_ if active[one] == fewest])


class Sticky:
    """Consistent hashing with bounded load, as Envoy's ring hash does it (`hash_balance_factor`).

    A replica is passed over while it has more than its share: `factor` times the mean number of requests,
    the new one among them, rounded up. Then the replicas are tried in an order that the hash decides, so that
    a popular set always spreads to the same ones.

    Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", arXiv 1608.01350.
    """

    def __init__(self, replicas: int, *, factor: float) -> None:
        """`factor` from 1; infinity bounds nothing."""
        each = max(1, RING_SIZE // replicas)
        places = [(_hash(f"{one}_{place}"), one) for one in range(replicas) for place in range(each)]
        places.sort()
        self._keys = [key for key, _ in places]
        self._owners = [one for _, one in places]
        self._factor = factor
        self._orders: dict[int, list[int]] = {}

    def choose(self, loras: int, active: Sequence[int], tried: Collection[int]) -> int:
        """The owner of the set, or the first in its order that has not its share already."""
        order = self._orders.get(loras)
        if order is None:
            order = self._orders[loras] = self._order(loras)
        open_ = [one for one in order if one not in tried]
        slots = self._slots(active)
        within = next((one for one in open_ if active[one] <= slots), None)
        return within if within is not None else min(open_, key=lambda one: active[one])

    def _slots(self, active: Sequence[int]) -> float:
        if math.isinf(self._factor):
            return math.inf
        return max(1, math.ceil(math.ceil((sum(active) + 1) * self._factor) / len(active)))

    def _order(self, loras: int) -> list[int]:
        key = _hash(f"set {loras}")
        owner = self._owners[bisect.bisect_left(self._keys, key) % len(self._owners)]
        others = sorted(set(self._owners) - {owner})
        random.Random(key).shuffle(others)
        return [owner, *others]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


POLICIES: Final[dict[str, Callable[[int, random.Random], Policy]]] = {
    "sticky": lambda replicas, _: Sticky(replicas, factor=FACTOR),
    "round robin": lambda replicas, _: RoundRobin(replicas),
    "least waiting": lambda _, random_: LeastWaiting(random_),
}


def policy_of(name: str, replicas: int, random_: random.Random) -> Policy:
    """A policy of POLICIES, or `sticky F`: sticky with the factor F."""
    if name in POLICIES:
        return POLICIES[name](replicas, random_)
    kind, _, factor = name.partition(" ")
    if kind != "sticky":
        raise ValueError(f"no policy {name!r}; there are {', '.join(POLICIES)} and sticky F")
    return Sticky(replicas, factor=float(factor))
