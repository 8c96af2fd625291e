"""Prometheus metrics of the requests to `diffuse`: its queue, and what it computes.

The queue of `diffuse` lies in its own process, so Triton's metrics of that model do not know it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any, Final

from intaglio.triton_models.metrics import MetricGroup, MetricSpec

__all__ = ["REQUEST_METRICS", "Counts", "RequestCounts", "RequestMetrics"]

REQUEST_METRICS: Final = (
    MetricSpec("queue_depth", "gauge", "requests that wait for their turn"),
    MetricSpec(
        "queue_oldest_wait_seconds",
        "gauge",
        "how long the request that has waited longest has waited so far; 0 while nobody waits",
    ),
    MetricSpec("queue_longest_wait_seconds", "gauge", "longest time that a request waited since the start"),
    MetricSpec("running", "gauge", "1 while a request is computed, otherwise 0"),
    MetricSpec(
        "requests_total",
        "counter",
        "requests that had their turn and were answered, also with an error; a request that is refused on "
        "arrival does not wait and is not counted",
    ),
    MetricSpec("queue_seconds_total", "counter", "seconds that these requests waited for their turn"),
    MetricSpec(
        "compute_seconds_total",
        "counter",
        "seconds that these requests were computed, including the time to apply their LoRAs and to open "
        "their ControlNets",
    ),
)


@dataclass(frozen=True, slots=True)
class Counts:
    """What has been since the start."""

    requests: int = 0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    longest_wait: float = 0.0
    running: bool = False


class RequestCounts:
    """Counts requests in the thread that answers them; any thread may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()
        self._began = 0.0

    def begin(self, waited: float) -> None:
        """The turn of a request has come, after `waited` seconds."""
        self._began = time.monotonic()
        with self._lock:
            longest = max(self._counts.longest_wait, waited)
            queued = self._counts.queue_seconds + waited
            self._counts = replace(self._counts, queue_seconds=queued, longest_wait=longest, running=True)

    def end(self) -> None:
        """Its answer is there."""
        with self._lock:
            computed = self._counts.compute_seconds + time.monotonic() - self._began
            requests = self._counts.requests + 1
            self._counts = replace(self._counts, requests=requests, compute_seconds=computed, running=False)

    @property
    def now(self) -> Counts:
        """The counts at this moment."""
        with self._lock:
            return self._counts


class RequestMetrics:
    """Reports them; `pb` is `triton_python_backend_utils`."""

    def __init__(self, pb: Any) -> None:
        self._metrics = MetricGroup(pb, REQUEST_METRICS)

    def report(self, counts: Counts, *, depth: int, oldest_wait: float) -> None:
        """`depth` requests wait now, the oldest of them for `oldest_wait` seconds."""
        self._metrics.set("queue_depth", depth)
        self._metrics.set("queue_oldest_wait_seconds", oldest_wait)
        self._metrics.set("queue_longest_wait_seconds", counts.longest_wait)
        self._metrics.set("running", float(counts.running))
        self._metrics.count("requests_total", counts.requests)
        self._metrics.count("queue_seconds_total", counts.queue_seconds)
        self._metrics.count("compute_seconds_total", counts.compute_seconds)
