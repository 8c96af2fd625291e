"""Looks at the queue again and again: who has waited too long, whose caller is gone, who has moved up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from intaglio.triton_models.jobs import Job
from intaglio.triton_models.turnstile import Entry, Turnstile
from intaglio.triton_models.watched_jobs import WatchedJobs

__all__ = ["QueueWatch"]

_LOOK_SECONDS: Final = 0.05
_LOOKS_A_PLACE: Final = 10
"""Looks between two that tell callers their places."""


class QueueWatch:
    """A thread from `start` to `close`."""

    def __init__(
        self,
        turnstile: Turnstile[Job, Any],
        watched: WatchedJobs,
        *,
        end: Callable[[Entry[Job, Any]], None],
        failed: Callable[[], None],
    ) -> None:
        """`end` is called for what is taken out of the queue, `failed` in the handler of an error."""
        self._turnstile = turnstile
        self._watched = watched
        self._end = end
        self._failed = failed
        self._showing = threading.Lock()
        """Keeps the places of one moment before those of the next, whichever thread tells them."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queue", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def stop(self, entry: Entry[Job, Any]) -> None:
        """Let `entry` end: now where it waits, otherwise after the slice that is drawn."""
        entry.job.stopped = True
        self.end_what_is_over()

    def end_what_is_over(self) -> None:
        """End the requests that wait and may do so no longer."""
        now = time.monotonic()
        for entry in self._turnstile.remove_waiting(
            lambda entry: entry.expires <= now or entry.job.is_to_end
        ):
            self._end(entry)
        # One that has begun ends in its next turn, which need not wait for others.
        self._turnstile.hurry(lambda entry: entry.job.is_to_end)

    def show_places(self) -> None:
        """Tell callers their places in the queue."""
        with self._showing:
            order = self._turnstile.order()
            for place, entry in enumerate(order):
                entry.job.show_place(place, waiting=len(order))

    def _run(self) -> None:
        looks = 0
        while not self._closing.wait(_LOOK_SECONDS):
            looks += 1
            try:
                for entry in self._watched.sweep():
                    entry.job.stopped = True
                self.end_what_is_over()
                if looks % _LOOKS_A_PLACE == 0:
                    self.show_places()
            except Exception:
                self._failed()
