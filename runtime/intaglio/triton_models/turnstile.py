"""Who is next: the one queue of everything that is drawn, in slices.

A request keeps its entry from its arrival to its end, and `take` says whose slice is next:

* interactive requests before batch requests,
* then requests that need neither other LoRAs nor other ControlNets than are resident, which saves swaps,
* then the request with the least work left, so that a short one does not wait for a long one to end,
* then in order of arrival.

Each rule lets a request overtake others that came before it. A request is overtaken at most `overtakes` times
and then goes first. So nobody waits for ever: a request waits for those that came before it and at most
`overtakes` others.

While a request is being drawn, only requests that need no swap begin. So a trajectory is drawn with one set
of LoRAs, and no slice causes a swap.

Several instances may draw from the queue, each with a resident set of its own. A request stays with the
instance that began it. A free instance prefers what it has resident, then what nobody has. What another
instance has resident it leaves to that one for as long as a swap takes: beyond that, waiting costs more than
the swap. A request that nobody has resident goes to the instance that has been idle longest. A request that
was overtaken `overtakes` times goes to the next free instance.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Entry", "Turnstile", "next_index", "waiting_order"]

Job = TypeVar("Job")
Wish = TypeVar("Wish")
"""What a request wants to be resident."""
_CHECK_SECONDS = 0.5
"""Between two checks of an instance that waits."""
NeedsSwap = Callable[[Wish], bool]
"""Whether something that is not resident now is wanted."""


@dataclass(slots=True, eq=False)
class Entry(Generic[Job, Wish]):
    """A request from its arrival to its end."""

    job: Job
    wish: Wish
    level: int = 0
    """Requests of a lower level go first."""
    work: float = 0.0
    """How much is left, in any unit that all requests share."""
    expires: float = math.inf
    """When it has waited too long, as `time.monotonic` has it; no matter once the request has begun."""
    since: float = field(default_factory=time.monotonic)
    begun: bool = False
    overtaken: int = 0
    instance: int | None = None
    """Which one has begun it and draws all of its slices."""

    def rank(self, needs_swap: NeedsSwap[Wish]) -> tuple[int, bool, float]:
        """Requests of a lower rank go first; of equal ones, the first that came."""
        return self.level, needs_swap(self.wish), self.work


def next_index(entries: Sequence[Entry[Job, Wish]], needs_swap: NeedsSwap[Wish], *, overtakes: int) -> int:
    """Index of the request whose slice is next; `entries` is in order of arrival and not empty."""
    every = range(len(entries))
    best = next((index for index in every if entries[index].overtaken >= overtakes), None)
    if best is None:
        best = min(every, key=lambda index: entries[index].rank(needs_swap))
    begun = [index for index in every if entries[index].begun]
    if begun and not entries[best].begun and needs_swap(entries[best].wish):
        return min(begun, key=lambda index: entries[index].rank(needs_swap))
    return best


def waiting_order(
    entries: Sequence[Entry[Job, Wish]], needs_swap: NeedsSwap[Wish], *, overtakes: int
) -> list[Entry[Job, Wish]]:
    """The requests that have not begun, the next one first, as far as that can be known now."""
    waiting = [entry for entry in entries if not entry.begun]
    tired = [entry for entry in waiting if entry.overtaken >= overtakes]
    others = [entry for entry in waiting if entry.overtaken < overtakes]
    return tired + sorted(others, key=lambda entry: entry.rank(needs_swap))


@dataclass(slots=True, eq=False)
class _Instance(Generic[Wish]):
    """One that draws, as the queue knows it."""

    needs_swap: NeedsSwap[Wish]
    heading: Wish | None = None
    """What the request wanted that it began last. It is resident there, or soon will be."""
    idle_since: float | None = None

    def has(self, wish: Wish) -> bool:
        return wish == self.heading or not self.needs_swap(wish)


class Turnstile(Generic[Job, Wish]):
    """The queue between those who bring requests and those who serve them, a slice at a time. Each instance
    that serves has a thread of its own.
    """

    def __init__(self, *, overtakes: int, capacity: int) -> None:
        """At most `capacity` requests may wait; 0 is any number. One that has begun waits no more."""
        self._overtakes = overtakes
        self._capacity = capacity
        self._entries: list[Entry[Job, Wish]] = []
        """In order of arrival."""
        self._changed = threading.Condition()
        self._closed = False
        self._instances: dict[int, _Instance[Wish]] = {}

    def put(self, entry: Entry[Job, Wish]) -> bool:
        """Queue `entry`; False where the queue is full or closed."""
        with self._changed:
            if self._closed or (self._capacity and self._depth() >= self._capacity):
                return False
            self._entries.append(entry)
            self._changed.notify_all()
            return True

    def take(
        self,
        needs_swap: NeedsSwap[Wish],
        *,
        instance: int = 0,
        patience: float = 0.0,
        check: Callable[[], None] | None = None,
    ) -> Entry[Job, Wish] | None:
        """The request whose slice `instance` draws next, waiting for one; None once the queue is closed and
        empty.

        It stays in the queue until `remove`. What another instance has resident is left to that one for
        `patience` seconds. While it waits, `check` is called again and again, and may raise.
        """
        with self._changed:
            own = self._instances.setdefault(instance, _Instance(needs_swap))
            own.needs_swap = needs_swap
            while True:
                entry, seconds = self._next(instance, patience)
                if entry is not None:
                    own.idle_since = None
                    return entry
                if self._closed and not self._entries:
                    return None
                if own.idle_since is None:
                    own.idle_since = time.monotonic()
                longest = math.inf if check is None else _CHECK_SECONDS
                seconds = min(seconds, longest)
                self._changed.wait(None if math.isinf(seconds) else seconds)
                if check is not None:
                    check()

    def _next(self, instance: int, patience: float) -> tuple[Entry[Job, Wish] | None, float]:
        """The next request for `instance`. Without one, in how many seconds to look again at the latest."""
        eligible: list[Entry[Job, Wish]] = []
        looks: list[float] = []
        for entry in self._entries:
            if entry.instance not in (None, instance):
                continue
            seconds = self._left_for(entry, instance, patience)
            if seconds > 0:
                looks.append(seconds)
            else:
                eligible.append(entry)
        if not eligible:
            return None, min(looks, default=math.inf)
        own = self._instances[instance]
        entry = eligible[next_index(eligible, own.needs_swap, overtakes=self._overtakes)]
        if not entry.begun:
            self._begin(entry, instance)
        return entry, 0.0

    def _left_for(self, entry: Entry[Job, Wish], instance: int, patience: float) -> float:
        """For how many seconds `instance` leaves `entry` to another one; 0: it may draw it now."""
        own = self._instances[instance]
        others = [other for number, other in self._instances.items() if number != instance]
        tired = entry.overtaken >= self._overtakes
        if not others or entry.begun or tired or not own.needs_swap(entry.wish):
            return 0.0
        now = time.monotonic()
        if any(other.has(entry.wish) for other in others):
            free_since = now if own.idle_since is None else own.idle_since
            return max(0.0, max(entry.since, free_since) + patience - now)
        idle = [other.idle_since for other in others if other.idle_since is not None]
        since = math.inf if own.idle_since is None else own.idle_since
        # The idle one takes it: it was woken when the request came.
        return math.inf if idle and min(idle) < since else 0.0

    def _begin(self, entry: Entry[Job, Wish], instance: int) -> None:
        entry.begun = True
        entry.instance = instance
        self._instances[instance].heading = entry.wish
        for other in self._entries[: self._entries.index(entry)]:
            if other.instance in (None, instance):
                other.overtaken += 1
        self._changed.notify_all()  # what this instance had resident is free for others

    def leave(self, instance: int, *, is_over: Callable[[Entry[Job, Wish]], bool]) -> list[Entry[Job, Wish]]:
        """`instance` draws no more for now. Its requests wait again and go first; they are returned. Those of
        them that are over are taken out, before another instance can begin them.
        """
        with self._changed:
            self._instances.pop(instance, None)
            released = [entry for entry in self._entries if entry.instance == instance]
            for entry in released:
                if is_over(entry):
                    self._entries.remove(entry)
                entry.begun, entry.instance = False, None
                entry.overtaken = self._overtakes
                entry.since, entry.expires = time.monotonic(), math.inf
            self._changed.notify_all()
            return released

    def remove(self, entry: Entry[Job, Wish]) -> bool:
        """Take `entry` out, which is over; False where it is out already."""
        with self._changed:
            if entry not in self._entries:
                return False
            self._entries.remove(entry)
            if self._closed:
                self._changed.notify_all()  # the other instances end with the last request
            return True

    def remove_waiting(self, chosen: Callable[[Entry[Job, Wish]], bool]) -> list[Entry[Job, Wish]]:
        """Take out and return every entry that has not begun and is `chosen`."""
        with self._changed:
            found = [entry for entry in self._entries if not entry.begun and chosen(entry)]
            for entry in found:
                self._entries.remove(entry)
            if self._closed and found:
                self._changed.notify_all()
            return found

    def hurry(self, chosen: Callable[[Entry[Job, Wish]], bool]) -> None:
        """Let every entry that has begun and is `chosen` come next: nothing is left of it but its end."""
        with self._changed:
            for entry in self._entries:
                if entry.begun and chosen(entry):
                    entry.level = entry.work = 0

    def order(self) -> list[Entry[Job, Wish]]:
        """The requests that wait, the next one first."""
        with self._changed:
            return waiting_order(self._entries, self._needs_any_swap, overtakes=self._overtakes)

    def waiting(self) -> tuple[int, float]:
        """How many wait, and for how many seconds the oldest of them has; 0 without any."""
        with self._changed:
            since = [entry.since for entry in self._entries if not entry.begun]
            return len(since), time.monotonic() - min(since) if since else 0.0

    def running(self, instance: int | None = None) -> int:
        """How many have begun and are not over, of all instances or of one."""
        with self._changed:
            return sum(entry.begun and instance in (None, entry.instance) for entry in self._entries)

    def is_empty(self) -> bool:
        """Whether nobody waits or is drawn."""
        with self._changed:
            return not self._entries

    def drain(self) -> list[Job]:
        """Refuse further requests; those that have no end yet are returned and no longer served."""
        with self._changed:
            self._closed = True
            jobs = [entry.job for entry in self._entries]
            self._entries.clear()
            self._changed.notify_all()
            return jobs

    def close(self) -> None:
        """Refuse further requests; those that wait are still served."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _needs_any_swap(self, wish: Wish) -> bool:
        """Whether no instance has it resident."""
        return all(one.needs_swap(wish) for one in self._instances.values())

    def _depth(self) -> int:
        return sum(not entry.begun for entry in self._entries)
