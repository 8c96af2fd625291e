"""Places in the queue are told in the order in which they were true."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

from intaglio.triton_models.jobs import Job
from intaglio.triton_models.queue_watch import QueueWatch
from intaglio.triton_models.replies import Watched
from intaglio.triton_models.turnstile import Entry, Turnstile
from intaglio.triton_models.watched_jobs import WatchedJobs


class Slow(Turnstile[Job, Any]):
    """A queue whose first look at the order takes until `go_on`."""

    def __init__(self) -> None:
        super().__init__(overtakes=8, capacity=0)
        self.looked, self.go_on = threading.Event(), threading.Event()

    def order(self) -> list[Entry[Job, Any]]:
        found = super().order()
        if not self.looked.is_set():
            self.looked.set()
            assert self.go_on.wait(30)
        return found


class Caller:
    """Who watches a picture of so much work."""

    def __init__(self, work: float) -> None:
        self.places: list[int] = []
        self._reply = Watched(lambda outputs: outputs["event"], wants_latents=False, patience=30)
        drawing: Any = None
        self.entry: Entry[Job, Any] = Entry(Job(drawing, self._reply, wanted=()), "", work=work)
        self._reply.ask(self._hear)

    def _hear(self, events: Sequence[bytes]) -> None:
        self.places += [json.loads(event)["place"] for event in events]

    def hear_all(self) -> list[int]:
        """The places that it was told, in order."""
        self._reply.ask(self._hear)
        return self.places


def test_a_place_that_is_no_longer_true_is_not_told_after_the_new_one() -> None:
    turnstile = Slow()
    watch = QueueWatch(turnstile, WatchedJobs(), end=lambda entry: None, failed=lambda: None)
    first, second = Caller(2.0), Caller(1.0)
    turnstile.put(first.entry)
    early = threading.Thread(target=watch.show_places)
    early.start()
    assert turnstile.looked.wait(30)
    turnstile.put(second.entry)
    late = threading.Thread(target=watch.show_places)
    late.start()
    late.join(0.5)  # it waits; without an order it would be the first to tell
    turnstile.go_on.set()
    early.join()
    late.join()
    assert first.hear_all() == [0, 1]
    assert second.hear_all() == [0]
