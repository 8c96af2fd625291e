"""The pictures whose callers ask for events, by the ids that the callers chose."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from intaglio.errors import InvalidRequest
from intaglio.triton_models.jobs import Job
from intaglio.triton_models.replies import Watched
from intaglio.triton_models.turnstile import Entry

__all__ = ["WatchedJobs"]


@dataclass(slots=True)
class _WatchedJob:
    reply: Watched
    entry: Entry[Job] | None = None
    """None until the picture is in the queue."""


class WatchedJobs:
    """They stay until their callers know the end, or no longer ask. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, _WatchedJob] = {}

    def add(self, job: str, reply: Watched) -> None:
        """Remember `job`, before it is queued.

        Raises:
            InvalidRequest: the id is in use.
        """
        with self._lock:
            if job in self._jobs:
                raise InvalidRequest("job", "this id is in use", allowed="an id that no other picture has")
            self._jobs[job] = _WatchedJob(reply)

    def set_entry(self, job: str, entry: Entry[Job]) -> None:
        """Say which entry of the queue `job` has."""
        with self._lock:
            if job in self._jobs:
                self._jobs[job].entry = entry

    def find(self, job: str) -> tuple[Entry[Job], Watched]:
        """The picture `job`.

        Raises:
            InvalidRequest: there is none.
        """
        with self._lock:
            found = self._jobs.get(job)
            if found is None or found.entry is None:
                allowed = "the id of a picture that is drawn; its first request brings the picture's tensors"
                raise InvalidRequest("job", "this id is unknown", allowed=allowed)
            return found.entry, found.reply

    def discard(self, job: str) -> None:
        """Forget `job`."""
        with self._lock:
            self._jobs.pop(job, None)

    def sweep(self) -> list[Entry[Job]]:
        """Forget those whose callers know the end, or no longer ask; the entries of the latter."""
        abandoned: list[Entry[Job]] = []
        with self._lock:
            for job, found in list(self._jobs.items()):
                if not (found.reply.is_over or found.reply.is_abandoned()):
                    continue
                del self._jobs[job]
                if found.entry is not None:
                    abandoned.append(found.entry)
        return abandoned
