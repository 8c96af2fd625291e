"""Prometheus metrics of the spans of `diffuse`, on Triton's metrics port.

Other stages have none: two models that shared a metric would lose it when the first of them is unloaded.
"""

from __future__ import annotations

from typing import Any, Final

from intaglio.telemetry.tracing import SpanCounts
from intaglio.triton_models.metrics import MetricGroup, MetricSpec

__all__ = ["SPAN_METRICS", "SpanMetrics"]

SPAN_METRICS: Final = (
    MetricSpec(
        "spans_total", "counter", "spans of traced requests that ended in `diffuse`; 0 without traces"
    ),
    MetricSpec(
        "spans_dropped_total",
        "counter",
        "spans among these that the collector did not get, because it did not answer or too many waited",
    ),
)


class SpanMetrics:
    """Reports them; `pb` is `triton_python_backend_utils`."""

    def __init__(self, pb: Any) -> None:
        self._metrics = MetricGroup(pb, SPAN_METRICS)

    def report(self, counts: SpanCounts) -> None:
        """The counts now."""
        self._metrics.count("spans_total", counts.ended)
        self._metrics.count("spans_dropped_total", counts.dropped)
