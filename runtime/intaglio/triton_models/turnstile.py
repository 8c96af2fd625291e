"""Which waiting request is next where a request may need other LoRAs or ControlNets than are resident.

Requests that need no swap go first, in order of arrival, which saves swaps. Such a request overtakes those
that came before it, and a request is overtaken at most `overtakes` times. So nobody waits for ever: a request
waits for those that came before it and at most `overtakes` others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Turnstile", "Waiting", "next_index"]

Job = TypeVar("Job")
Wish = TypeVar("Wish")
"""What a request wants to be resident."""


@dataclass(slots=True)
class Waiting(Generic[Job, Wish]):
    """A request in the queue."""

    job: Job
    wish: Wish
    since: float = field(default_factory=time.monotonic)
    overtaken: int = 0


def next_index(
    waiting: Sequence[Waiting[Job, Wish]], needs_swap: Callable[[Wish], bool], *, overtakes: int
) -> int:
    """Index of the request to serve next; `waiting` is in order of arrival and not empty."""
    if waiting[0].overtaken >= overtakes:  # the first one was overtaken most often
        return 0
    return next((index for index, one in enumerate(waiting) if not needs_swap(one.wish)), 0)


class Turnstile(Generic[Job, Wish]):
    """The queue between those who bring requests and the one thread that serves them."""

    def __init__(self, *, overtakes: int, capacity: int) -> None:
        """At most `capacity` requests may wait; 0 is any number."""
        self._overtakes = overtakes
        self._capacity = capacity
        self._waiting: list[Waiting[Job, Wish]] = []
        self._changed = threading.Condition()
        self._closed = False

    def put(self, job: Job, wish: Wish) -> bool:
        """Queue `job`; False where the queue is full or closed."""
        with self._changed:
            if self._closed or (self._capacity and len(self._waiting) >= self._capacity):
                return False
            self._waiting.append(Waiting(job, wish))
            self._changed.notify()
            return True

    def take(self, needs_swap: Callable[[Wish], bool]) -> Waiting[Job, Wish] | None:
        """The next request, waiting for one; None once the queue is closed and empty."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            index = next_index(self._waiting, needs_swap, overtakes=self._overtakes)
            for one in self._waiting[:index]:
                one.overtaken += 1
            return self._waiting.pop(index)

    def waiting(self) -> tuple[int, float]:
        """How many wait, and for how many seconds the oldest of them has; 0 without any."""
        with self._changed:
            if not self._waiting:
                return 0, 0.0
            return len(self._waiting), time.monotonic() - self._waiting[0].since

    def drain(self) -> list[Job]:
        """Refuse further requests; those that wait are returned and no longer served."""
        with self._changed:
            self._closed = True
            jobs = [one.job for one in self._waiting]
            self._waiting.clear()
            self._changed.notify_all()
            return jobs

    def close(self) -> None:
        """Refuse further requests; those that wait are still served."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
