"""The simulation: requests come at random, a policy sends each to a replica, replicas draw them one by one.

Each replica has the server's own queue (`intaglio.triton_models.turnstile`): requests for the resident LoRAs
go first, and each is overtaken a bounded number of times. All pictures are of one size, so a picture is drawn
in one turn: with slices the order would be the same. Time is simulated; nothing is drawn.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.replicas.costs import Costs
from benchmarks.replicas.policies import Policy
from intaglio.triton_models.turnstile import Entry, Turnstile

__all__ = ["Case", "Outcome", "popularities", "simulate"]

_RETRIES: Final = 4
"""Further replicas that a request is sent to whose queue is full (envoy.yaml: `num_retries`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is simulated."""

    replicas: int
    loras: int
    """Sets of LoRAs that requests choose from."""
    load: float
    """Arrivals by what the replicas could draw in the same time if no swap took any."""
    requests: int
    zipf: float = 1.0
    """The set of rank r is chosen in proportion to 1 / r**zipf; with 0 all are equally popular."""
    overtakes: int = 8
    queue_size: int = 32
    seed: int = 0


@dataclass(slots=True)
class Outcome:
    """What came of it; the first tenth of the requests fills the queues and is not counted."""

    waits: list[float] = field(default_factory=list)
    """Seconds from the arrival of a request to its first step: the queue, and the swap."""
    drawn: int = 0
    swaps: int = 0
    reads: int = 0
    """Swaps whose files were not in the server's memory."""
    refused: int = 0
    """Requests that found every queue full that they were sent to."""
    seconds: float = 0.0
    """When the last picture was done."""


@dataclass(slots=True)
class _Request:
    number: int
    arrived: float


class _Replica:
    """One server: its queue, what is resident, and what is on the card."""

    def __init__(self, case: Case) -> None:
        self.queue: Turnstile[_Request, int] = Turnstile(overtakes=case.overtakes, capacity=case.queue_size)
        self.resident = -1
        self.files: dict[int, None] = {}
        """Sets whose files are in memory, the one that was used last at the end."""
        self.drawing: Entry[_Request, int] | None = None

    def use(self, entry: Entry[_Request, int], *, kept: int) -> None:
        """Draw `entry` with its set resident, and keep the files of that set and those used before."""
        self.drawing, self.resident = entry, entry.wish
        self.files.pop(entry.wish, None)
        self.files[entry.wish] = None
        if len(self.files) > kept:
            del self.files[next(iter(self.files))]


def popularities(loras: int, zipf: float) -> list[float]:
    """The share of each set, the most popular one first; they add up to 1."""
    weights = [1 / rank**zipf for rank in range(1, loras + 1)]
    whole = sum(weights)
    return [weight / whole for weight in weights]


def simulate(case: Case, costs: Costs, policy: Policy) -> Outcome:
    """Draw all requests of `case`."""
    return _Simulation(case, costs, policy).run()


class _Simulation:
    def __init__(self, case: Case, costs: Costs, policy: Policy) -> None:
        self._case = case
        self._costs = costs
        self._policy = policy
        self._replicas = [_Replica(case) for _ in range(case.replicas)]
        self._active = [0] * case.replicas
        self._ends: list[tuple[float, int, int]] = []
        """When a replica ends a picture; a number that keeps equal times in order; the replica."""
        self._order = itertools.count()
        self._uncounted = case.requests // 10
        self._outcome = Outcome()

    def run(self) -> Outcome:
        for request, loras in _arrivals(self._case, self._costs):
            self._end_until(request.arrived)
            self._send(request, loras)
        self._end_until(float("inf"))
        return self._outcome

    def _send(self, request: _Request, loras: int) -> None:
        tried: set[int] = set()
        for _ in range(min(_RETRIES + 1, len(self._replicas))):
            index = self._policy.choose(loras, self._active, tried)
            if self._replicas[index].queue.put(Entry(request, loras, since=request.arrived)):
                self._active[index] += 1
                self._begin(index, request.arrived)
                return
            tried.add(index)
        if request.number >= self._uncounted:
            self._outcome.refused += 1

    def _begin(self, index: int, now: float) -> None:
        """Put the next picture on the card, where that is free."""
        replica = self._replicas[index]
        if replica.drawing is not None or self._active[index] == 0:
            return
        entry = replica.queue.take(lambda wish: wish != replica.resident)
        assert entry is not None
        swaps = entry.wish != replica.resident
        reads = swaps and self._costs.reading > 0 and entry.wish not in replica.files
        swap = swaps * self._costs.swap + reads * self._costs.reading
        replica.use(entry, kept=self._costs.kept)
        seconds = swap + self._costs.picture
        heapq.heappush(self._ends, (now + seconds, next(self._order), index))
        if entry.job.number >= self._uncounted:
            self._outcome.waits.append(now + swap - entry.job.arrived)
            self._outcome.drawn += 1
            self._outcome.swaps += swaps
            self._outcome.reads += reads

    def _end_until(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            ended, _, index = heapq.heappop(self._ends)
            replica = self._replicas[index]
            assert replica.drawing is not None
            replica.queue.remove(replica.drawing)
            replica.drawing = None
            self._active[index] -= 1
            self._outcome.seconds = ended
            self._begin(index, ended)


def _arrivals(case: Case, costs: Costs) -> Iterator[tuple[_Request, int]]:
    """Requests in order of arrival, which is a Poisson process, each with its set."""
    random_ = random.Random(f"{case.seed} {case.replicas} {case.loras} {case.load}")
    bounds = list(itertools.accumulate(popularities(case.loras, case.zipf)))
    rate = case.load * case.replicas / costs.picture
    now = 0.0
    for number in range(case.requests):
        now += random_.expovariate(rate)
        yield _Request(number, now), _chosen(bounds, random_.random())


def _chosen(bounds: Sequence[float], share: float) -> int:
    return min(bisect.bisect_right(bounds, share), len(bounds) - 1)
