"""Which picture is drawn next, by whichever server asks; and which one is judged next."""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from intaglio_client.image import Image

__all__ = ["Drawn", "Schedule"]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture, and who drew it when."""

    image: Image
    server: str
    at: str
    """In UTC, as ISO 8601 has it."""


class Schedule:
    """What servers draw and what they drew. Threads share it."""

    def __init__(self, candidates: Iterable[int], *, wanted: Callable[[int], bool], ahead: int) -> None:
        """`candidates` are indices in their order. One that is not `wanted` at its turn is not drawn
        unless somebody demands it.

        At most `ahead` pictures are being drawn, or wait for an earlier one, at a time. When there are that
        many, the one that all wait for is drawn a second time by another server: its own is slow, or hangs.
        """
        self._fresh = iter(candidates)
        self._wanted = wanted
        self._ahead = ahead
        self._changed = threading.Condition()
        self._again: list[int] = []
        self._drawing: dict[int, set[str]] = {}
        self._drawn: dict[int, Drawn] = {}
        self._failures: Counter[int] = Counter()
        self._problems: dict[int, BaseException] = {}
        self._closed = threading.Event()
        self._head = -1
        self._seen = -1
        """The last candidate that had its turn."""

    def take(self, server: str) -> int | None:
        """The next picture for `server` to draw, as soon as there is one; None once nothing more is drawn."""
        with self._changed:
            while not self._closed.is_set():
                index = self._next(server)
                if index is not None:
                    self._drawing.setdefault(index, set()).add(server)
                    return index
                self._changed.wait()
        return None

    def _next(self, server: str) -> int | None:
        last = min((index for index in self._problems if index >= self._head), default=None)
        while self._again and (last is None or self._again[0] < last):
            index = heapq.heappop(self._again)
            if self._is_wanted(index):
                return index
        if last is not None:  # what comes behind it is never judged
            return None
        if len(self._drawing) + len(self._drawn) >= self._ahead:
            drawers = self._drawing.get(self._head, set())
            return self._head if len(drawers) == 1 and server not in drawers else None
        for index in self._fresh:
            self._seen = index
            if self._is_wanted(index):
                return index
        return None

    def _is_wanted(self, index: int) -> bool:
        return index >= self._head and self._wanted(index)

    def move_to(self, index: int) -> None:
        """Pictures before the picture `index` are not needed any more."""
        with self._changed:
            self._head = index
            self._changed.notify_all()
            for passed in [one for one in self._drawn if one < index]:
                del self._drawn[passed]

    def demand(self, index: int) -> None:
        """The picture `index` has to be drawn, also where it was not wanted at its turn."""
        with self._changed:
            places = (self._drawing, self._drawn, self._again, self._problems)
            if index <= self._seen and not any(index in place for place in places):
                heapq.heappush(self._again, index)
                self._changed.notify_all()

    def deliver(self, index: int, drawn: Drawn) -> None:
        """A picture was drawn."""
        with self._changed:
            self._drawing.pop(index, None)
            self._problems.pop(index, None)  # another server could draw it
            if index >= self._head:
                self._drawn.setdefault(index, drawn)
            self._changed.notify_all()

    def give_back(self, index: int, server: str) -> None:
        """`server` did not draw a picture; another server, or the same one later, draws it."""
        with self._changed:
            others = self._drawing.get(index, set())
            others.discard(server)
            if not others and index not in self._drawn:
                self._drawing.pop(index, None)
                heapq.heappush(self._again, index)
            self._changed.notify_all()

    def failures(self, index: int) -> int:
        """Count a failure to draw a picture; returns how often that happened so far."""
        with self._changed:
            self._failures[index] += 1
            return self._failures[index]

    def fail(self, index: int, problem: BaseException) -> None:
        """The picture `index` cannot be drawn. Those before it still are, then `wait_for` raises it."""
        with self._changed:
            self._drawing.pop(index, None)
            if index not in self._drawn:
                self._problems.setdefault(index, problem)
            self._changed.notify_all()

    def wait_for(self, index: int, *, seconds: float) -> Drawn | None:
        """The picture `index` as soon as it is drawn; None after `seconds`.

        Raises what `fail` was told.
        """
        until = time.monotonic() + seconds
        with self._changed:
            while index not in self._drawn:
                if index in self._problems:
                    raise self._problems[index]
                left = until - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)
            drawn = self._drawn.pop(index)
            self._head = index + 1
            self._changed.notify_all()
            return drawn

    def pause(self, seconds: float) -> bool:
        """Wait; returns whether nothing more is drawn, as soon as that is so."""
        return self._closed.wait(seconds)

    def close(self) -> None:
        """Nothing more is drawn."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is drawn."""
        return self._closed.is_set()
