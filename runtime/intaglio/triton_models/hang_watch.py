"""Instances that hang: a process that neither answers nor ends, stopped or stuck in a call of the driver.

A heartbeat would prove that some thread of the process runs, and not that the one that draws does. So only an
answer counts. Each question has a limit, and a process that does not answer within it is killed: what then
follows is what follows `kill -9`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable, Sequence
from typing import Final, Protocol

from intaglio.recently_used import RecentlyUsed
from intaglio.triton_models.jobs import Pace

__all__ = ["OPEN_SECONDS", "Expected", "HangWatch", "Question"]

_log = logging.getLogger(__name__)

OPEN_SECONDS: Final = 900.0
"""At least for what is done for the first time: opening engines, which `intaglio serve` allows as long, and
the first slice of a shape, whose kernels may have to be compiled. For swaps, too: their files may be on a
slow disk.
"""
_TIMES_EXPECTED: Final = 10.0
_SHAPES: Final = 256
"""So many are kept, since requests choose them."""
_LOOK_SECONDS: Final = 1.0


class Question:
    """How long the process has not answered. One thread asks, and another one looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limit: float | None = None
        self._waited: float | None = None
        """Since the first look, which comes after a part of the time between two looks."""

    def ask(self, limit: float) -> None:
        """A question goes out that is to be answered within `limit` seconds."""
        with self._lock:
            self._limit, self._waited = limit, None

    def end(self) -> None:
        """It is answered, or the process has ended."""
        with self._lock:
            self._limit = None

    def late(self, seconds: float) -> float | None:
        """It was not answered for `seconds` more. Its limit, where that has passed now, else None."""
        with self._lock:
            if self._limit is None:
                return None
            self._waited = 0.0 if self._waited is None else self._waited + seconds
            return self._limit if self._waited > self._limit else None


class Expected:
    """How long an instance may take, by what its process has done."""

    def __init__(self, least: float) -> None:
        """No limit is below `least` seconds."""
        self._least = least
        self._pace = Pace()
        self._seen: RecentlyUsed[bool] = RecentlyUsed(_SHAPES)
        """What the process has run."""

    def forget(self) -> None:
        """Another process begins, which has done nothing yet."""
        self._seen.clear()

    def limit(self, shapes: Hashable | None, *, work: float) -> float:
        """Seconds for `work`. `shapes` stands for the networks that run and the shapes of their tensors; None
        where none run.
        """
        is_new = shapes is not None and self._seen.get(shapes) is None
        floor = OPEN_SECONDS if is_new else 0.0
        return max(self._least, floor, _TIMES_EXPECTED * self._pace.seconds_of(work))

    def did(self, shapes: Hashable, *, work: float = 0.0, seconds: float = 0.0) -> None:
        """The networks have run. `work` took `seconds`; without work the time says nothing."""
        self._seen.put(shapes, True)
        if work:
            self._pace.worked(work, seconds)


class _Watched(Protocol):
    def look(self, seconds: float) -> None:
        """`seconds` have passed since the last look."""


class HangWatch:
    """A thread that looks at instances again and again, from `start` to `close`."""

    def __init__(self, instances: Sequence[_Watched]) -> None:
        self._instances = instances
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hang watch", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(_LOOK_SECONDS):
            now = time.monotonic()
            # A look that comes late says that this process was stopped, too: a container that was paused.
            passed = min(now - last, 2 * _LOOK_SECONDS)
            last = now
            for instance in self._instances:
                try:
                    instance.look(passed)
                except Exception:  # the others, and the next look, must not miss for it
                    _log.exception("error: hang watch: a look at an instance failed")
