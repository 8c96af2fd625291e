"""The threads of several instances: each has its instance draw, and starts it again when it is lost.

What a lost instance had begun goes back into the queue as it was after its last slice, and another instance
goes on with it. While none is left for the moment, the queue waits. An instance that was started again
`MOST_RESTARTS` times within `RESTART_SECONDS` stays out, and the process ends where none is left for good.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from intaglio.errors import IntaglioError, Unavailable
from intaglio.triton_models.drawer import Drawer
from intaglio.triton_models.instances import Instance, InstanceLost
from intaglio.triton_models.jobs import Job
from intaglio.triton_models.request_metrics import RequestCounts
from intaglio.triton_models.turnstile import Entry, Turnstile

__all__ = ["MOST_RESTARTS", "RESTART_SECONDS", "Crew", "QueueEntry", "Seat"]

_log = logging.getLogger(__name__)
QueueEntry = Entry[Job, Any]

MOST_RESTARTS: Final = 5
RESTART_SECONDS: Final = 600.0
_FIRST_DELAY: Final = 1.0
_LONGEST_DELAY: Final = 30.0
_MOST_LOSSES: Final = 3
"""Instances that may be lost while they have one picture: the picture may be the reason."""


@dataclass(slots=True)
class Seat:
    """An instance, and what has become of it."""

    instance: Instance
    drawer: Drawer
    work: RequestCounts
    """What it has computed."""
    up: bool = True
    restarts: list[float] = field(default_factory=list)
    """When it was started again lately, as `time.monotonic` has it."""
    restarted: int = 0
    moved: int = 0
    """Pictures that it had begun when it was lost."""

    @property
    def label(self) -> str:
        """In metrics."""
        return self.instance.place.label

    @property
    def number(self) -> int:
        """Of the instance in the queue."""
        return self.instance.place.number


class Crew:
    """From `start` to `close`, which returns once the queue is closed and empty."""

    def __init__(
        self,
        seats: Sequence[Seat],
        turnstile: Turnstile[Job, Any],
        *,
        draw: Callable[[QueueEntry, Drawer], None],
        end: Callable[[QueueEntry, Exception], None],
        give_up: Callable[[str], None],
    ) -> None:
        """`draw` has a drawer draw the next slice of a picture, and answers. `end` ends a picture that is no
        longer in the queue with an error. `give_up` is called when no instance is left for good.
        """
        self._seats = seats
        self._turnstile = turnstile
        self._draw = draw
        self._end = end
        self._give_up = give_up
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._left = len(seats)
        """Instances that have not been given up."""
        self._threads = [
            threading.Thread(target=self._serve, args=(seat,), name=f"diffuse {seat.number}", daemon=True)
            for seat in seats
        ]

    def start(self) -> None:
        """Draw from now on."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Return once everything in the closed queue is drawn."""
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _serve(self, seat: Seat) -> None:
        """The thread of an instance."""
        while True:
            try:
                if not self._serve_slice(seat):
                    return
            except InstanceLost as lost:
                self._release(seat, lost)
                if not self._start_again(seat, str(lost)):
                    return

    def _serve_slice(self, seat: Seat) -> bool:
        """Whether there was something to draw; nothing comes once the queue is closed and empty."""
        instance = seat.instance
        entry = self._turnstile.take(
            instance.needs_swap,
            instance=seat.number,
            patience=instance.swap_seconds,
            check=instance.check,
        )
        if entry is None:
            return False
        self._draw(entry, seat.drawer)
        return True

    def _release(self, seat: Seat, lost: InstanceLost) -> None:
        """Give the pictures that a lost instance had begun to the others."""
        seat.up = False
        ended: list[QueueEntry] = []

        def is_over(entry: QueueEntry) -> bool:
            entry.job.losses += 1
            if entry.job.losses >= _MOST_LOSSES:
                ended.append(entry)
            return entry.job.losses >= _MOST_LOSSES

        released = self._turnstile.leave(seat.number, is_over=is_over)
        moved = len(released) - len(ended)
        seat.moved += moved
        if moved:
            _log.warning("%d pictures that it had begun go on elsewhere", moved)
        for entry in ended:
            why = f"{entry.job.losses} instances were lost while they had this picture; the last: {lost}"
            self._end(entry, Unavailable(why))

    def _start_again(self, seat: Seat, why: str) -> bool:
        """Start a lost instance again; False where it is given up, or nobody needs it any more."""
        while not self._is_over():
            now = time.monotonic()
            seat.restarts = [moment for moment in seat.restarts if now - moment < RESTART_SECONDS]
            count = len(seat.restarts)
            if count >= MOST_RESTARTS:
                self._give_seat_up(f"{why}; given up after {MOST_RESTARTS} restarts")
                return False
            delay = min(_FIRST_DELAY * 2.0**count, _LONGEST_DELAY)
            _log.warning("%s; restart %d of %d in %g s", why, count + 1, MOST_RESTARTS, delay)
            self._closing.wait(delay)
            seat.restarts.append(time.monotonic())
            try:
                seat.instance.start(hashes=True)
                seat.instance.wait_open(is_needless=self._is_over)
            except (InstanceLost, IntaglioError) as error:
                why = str(error)
                continue
            seat.restarted += 1
            seat.up = True
            _log.warning("%s draws again", seat.instance.place.shown)
            return True
        return False

    def _is_over(self) -> bool:
        """Whether nothing is left to draw, and nothing comes."""
        return self._closing.is_set() and self._turnstile.is_empty()

    def _give_seat_up(self, why: str) -> None:
        _log.error("error: %s", why)  # lines that begin so are errors in the log as JSON
        with self._lock:
            self._left -= 1
            if self._left:
                return
        self._give_up(why)
