"""Who is next: the one queue of everything that is drawn, in slices.

A request keeps its entry from its arrival to its end, and `take` says whose slice is next:

* interactive requests before batch requests,
* then requests for the resident LoRAs before others, which saves swaps,
* then the request with the least work left, so that a short one does not wait for a long one to end,
* then in order of arrival.

Each rule lets a request overtake others that came before it. A request is overtaken at most `overtakes` times
and then goes first. So nobody waits for ever: a request waits for those that came before it and at most
`overtakes` others.

Slices of requests for different LoRAs never mix: while a request is being drawn, only requests for the same
LoRAs begin. So a trajectory is drawn with one set, and no slice causes a swap.
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


@dataclass(slots=True, eq=False)
class Entry(Generic[Job]):
    """A request from its arrival to its end."""

    job: Job
    key: str = ""
    """Digest of the LoRAs that it wants."""
    level: int = 0
    """Requests of a lower level go first."""
    work: float = 0.0
    """How much is left, in any unit that all requests share."""
    expires: float = math.inf
    """When it has waited too long, as `time.monotonic` has it; no matter once the request has begun."""
    since: float = field(default_factory=time.monotonic)
    begun: bool = False
    overtaken: int = 0

    def rank(self, resident: str) -> tuple[int, bool, float]:
        """Requests of a lower rank go first; of equal ones, the first that came."""
        return self.level, self.key != resident, self.work


def next_index(entries: Sequence[Entry[Job]], resident: str, *, overtakes: int) -> int:
    """Index of the request whose slice is next; `entries` is in order of arrival and not empty."""
    every = range(len(entries))
    best = next((index for index in every if entries[index].overtaken >= overtakes), None)
    if best is None:
        best = min(every, key=lambda index: entries[index].rank(resident))
    begun = [index for index in every if entries[index].begun]
    if begun and entries[best].key != entries[begun[0]].key:
        return min(begun, key=lambda index: entries[index].rank(resident))
    return best


def waiting_order(entries: Sequence[Entry[Job]], resident: str, *, overtakes: int) -> list[Entry[Job]]:
    """The requests that have not begun, the next one first, as far as that can be known now."""
    waiting = [entry for entry in entries if not entry.begun]
    tired = [entry for entry in waiting if entry.overtaken >= overtakes]
    others = [entry for entry in waiting if entry.overtaken < overtakes]
    return tired + sorted(others, key=lambda entry: entry.rank(resident))


class Turnstile(Generic[Job]):
    """The queue between those who bring requests and the one thread that serves them, a slice at a time."""

    def __init__(self, *, overtakes: int, capacity: int) -> None:
        """At most `capacity` requests may wait; 0 is any number. One that has begun waits no more."""
        self._overtakes = overtakes
        self._capacity = capacity
        self._entries: list[Entry[Job]] = []
        """In order of arrival."""
        self._changed = threading.Condition()
        self._closed = False
        self._resident = ""

    def put(self, entry: Entry[Job]) -> bool:
        """Queue `entry`; False where the queue is full or closed."""
        with self._changed:
            if self._closed or (self._capacity and self._depth() >= self._capacity):
                return False
            self._entries.append(entry)
            self._changed.notify_all()
            return True

    def take(self, resident: str) -> Entry[Job] | None:
        """The request whose slice is next, waiting for one; None once the queue is closed and empty.

        It stays in the queue until `remove`.
        """
        with self._changed:
            while not self._entries:
                if self._closed:
                    return None
                self._changed.wait()
            self._resident = resident
            index = next_index(self._entries, resident, overtakes=self._overtakes)
            entry = self._entries[index]
            if not entry.begun:
                entry.begun = True
                for other in self._entries[:index]:
                    other.overtaken += 1
            return entry

    def remove(self, entry: Entry[Job]) -> bool:
        """Take `entry` out, which is over; False where it is out already."""
        with self._changed:
            if entry not in self._entries:
                return False
            self._entries.remove(entry)
            return True

    def remove_waiting(self, chosen: Callable[[Entry[Job]], bool]) -> list[Entry[Job]]:
        """Take out and return every entry that has not begun and is `chosen`."""
        with self._changed:
            found = [entry for entry in self._entries if not entry.begun and chosen(entry)]
            for entry in found:
                self._entries.remove(entry)
            return found

    def hurry(self, chosen: Callable[[Entry[Job]], bool]) -> None:
        """Let every entry that has begun and is `chosen` come next: nothing is left of it but its end."""
        with self._changed:
            for entry in self._entries:
                if entry.begun and chosen(entry):
                    entry.level = entry.work = 0

    def order(self) -> list[Entry[Job]]:
        """The requests that wait, the next one first."""
        with self._changed:
            return waiting_order(self._entries, self._resident, overtakes=self._overtakes)

    def waiting(self) -> tuple[int, float]:
        """How many wait, and for how many seconds the oldest of them has; 0 without any."""
        with self._changed:
            since = [entry.since for entry in self._entries if not entry.begun]
            return len(since), time.monotonic() - min(since) if since else 0.0

    def running(self) -> int:
        """How many have begun and are not over."""
        with self._changed:
            return len(self._entries) - self._depth()

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

    def _depth(self) -> int:
        return sum(not entry.begun for entry in self._entries)
