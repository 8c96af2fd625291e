"""Prometheus metrics of the requests of `diffuse`, on Triton's metrics port.

The queue of `diffuse` lies in its own process, so Triton's metrics of that model do not know it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from intaglio.errors import Cancelled, DeadlineExceeded
from intaglio.triton_models.metrics import MetricGroup, MetricSpec

__all__ = ["REQUEST_METRICS", "Counts", "Outcome", "RequestCounts", "RequestMetrics", "outcome_of"]

Outcome = Literal["finished", "failed", "cancelled", "late"]
"""How a request ends that was let in; each ends in exactly one way."""

REQUEST_METRICS: Final = (
    MetricSpec("queue_depth", "gauge", "requests that wait for their turn"),
    MetricSpec(
        "queue_oldest_wait_seconds",
        "gauge",
        "how long the request that has waited longest has waited so far; 0 while nobody waits",
    ),
    MetricSpec("queue_longest_wait_seconds", "gauge", "longest time that a request waited since the start"),
    MetricSpec(
        "running",
        "gauge",
        "requests that have had their turn and are not over: one is computed, and the others wait between "
        "two of their slices for a shorter request or one of a higher priority",
        each=True,
    ),
    MetricSpec(
        "requests_total",
        "counter",
        "requests that were let into the queue and are over, however they ended; a request that is refused "
        "on arrival does not wait and is not counted",
    ),
    MetricSpec("requests_finished_total", "counter", "requests among these that got their picture"),
    MetricSpec("requests_failed_total", "counter", "requests among these that ended with an error"),
    MetricSpec(
        "requests_cancelled_total", "counter", "requests among these that their callers cancelled or left"
    ),
    MetricSpec(
        "requests_late_total",
        "counter",
        "requests among these that ended because their `deadline` or `queue_timeout` passed",
    ),
    MetricSpec("requests_refused_total", "counter", "requests that found the queue full"),
    MetricSpec("queue_seconds_total", "counter", "seconds that requests waited for their turn"),
    MetricSpec(
        "compute_seconds_total",
        "counter",
        "seconds that requests were computed, including the time to apply their LoRAs and to open their "
        "ControlNets",
        each=True,
    ),
    MetricSpec(
        "steps_total",
        "counter",
        "steps that were computed, calls of the UNet for all of their images",
        each=True,
    ),
    MetricSpec(
        "steps_saved_total", "counter", "steps that were not computed because their requests ended early"
    ),
    MetricSpec("step_seconds", "gauge", "seconds a step, in the slice that was computed last", each=True),
    MetricSpec("step_seconds_total", "counter", "seconds that all these steps took", each=True),
)


def outcome_of(error: BaseException) -> Outcome:
    """How a request ends that ends with `error`."""
    if isinstance(error, DeadlineExceeded):
        return "late"
    return "cancelled" if isinstance(error, Cancelled) else "failed"


@dataclass(frozen=True, slots=True)
class Counts:
    """What has been since the start."""

    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    late: int = 0
    refused: int = 0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    longest_wait: float = 0.0
    steps: int = 0
    steps_saved: int = 0
    step_seconds: float = 0.0
    last_step_seconds: float = 0.0

    @property
    def requests(self) -> int:
        """All that were let in and are over."""
        return self.finished + self.failed + self.cancelled + self.late


class RequestCounts:
    """Counts requests; any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()

    def waited(self, seconds: float) -> None:
        """The turn of a request has come after `seconds`, or it has ended in the queue."""
        with self._lock:
            longest = max(self._counts.longest_wait, seconds)
            queued = self._counts.queue_seconds + seconds
            self._counts = replace(self._counts, queue_seconds=queued, longest_wait=longest)

    def computed(self, seconds: float) -> None:
        """Something of a request took `seconds`."""
        with self._lock:
            self._counts = replace(self._counts, compute_seconds=self._counts.compute_seconds + seconds)

    def stepped(self, steps: int, seconds: float) -> None:
        """The `steps` of a slice took `seconds`, a part of what was computed."""
        if steps == 0:
            return
        with self._lock:
            self._counts = replace(
                self._counts,
                steps=self._counts.steps + steps,
                step_seconds=self._counts.step_seconds + seconds,
                last_step_seconds=seconds / steps,
            )

    def ended(self, outcome: Outcome, *, steps_left: int) -> None:
        """A request is over, `steps_left` steps before its end."""
        with self._lock:
            counts = self._counts
            saved = counts.steps_saved
            if outcome in ("cancelled", "late"):
                saved += steps_left
            changes = {outcome: getattr(counts, outcome) + 1, "steps_saved": saved}
            self._counts = replace(counts, **changes)

    def refused(self) -> None:
        """A request found the queue full."""
        with self._lock:
            self._counts = replace(self._counts, refused=self._counts.refused + 1)

    @property
    def now(self) -> Counts:
        """The counts at this moment."""
        with self._lock:
            return self._counts


class RequestMetrics:
    """Reports them; `pb` is `triton_python_backend_utils`."""

    def __init__(self, pb: Any, *, instances: Sequence[str] = ("",)) -> None:
        self._queue = MetricGroup(pb, [spec for spec in REQUEST_METRICS if not spec.each])
        own = [spec for spec in REQUEST_METRICS if spec.each]
        self._drawing = MetricGroup(pb, own, instances=instances)

    def report(self, counts: Counts, *, depth: int, oldest_wait: float) -> None:
        """`depth` requests wait now, the oldest of them for `oldest_wait` seconds."""
        metrics = self._queue
        metrics.set("queue_depth", depth)
        metrics.set("queue_oldest_wait_seconds", oldest_wait)
        metrics.set("queue_longest_wait_seconds", counts.longest_wait)
        for name, total in (
            ("requests_total", counts.requests),
            ("requests_finished_total", counts.finished),
            ("requests_failed_total", counts.failed),
            ("requests_cancelled_total", counts.cancelled),
            ("requests_late_total", counts.late),
            ("requests_refused_total", counts.refused),
            ("queue_seconds_total", counts.queue_seconds),
            ("steps_saved_total", counts.steps_saved),
        ):
            metrics.count(name, total)

    def report_drawing(self, counts: Counts, *, running: int, instance: str = "") -> None:
        """What `instance` has computed; `running` of its requests have begun."""
        metrics = self._drawing
        metrics.set("running", running, instance=instance)
        metrics.set("step_seconds", counts.last_step_seconds, instance=instance)
        metrics.count("compute_seconds_total", counts.compute_seconds, instance=instance)
        metrics.count("steps_total", counts.steps, instance=instance)
        metrics.count("step_seconds_total", counts.step_seconds, instance=instance)
