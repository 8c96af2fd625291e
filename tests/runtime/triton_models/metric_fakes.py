"""A stand-in for Triton's metrics."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import ClassVar


class Metric:
    """Counters refuse to go down."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.value = 0.0

    def set(self, value: float) -> None:
        assert self.kind == Family.GAUGE
        self.value = value

    def increment(self, value: float) -> None:
        assert self.kind == Family.COUNTER
        assert value >= 0
        self.value += value


class Family:
    """`MetricFamily`; like Triton it forgets a metric with the family, and no sooner."""

    COUNTER, GAUGE = "counter", "gauge"
    shown: ClassVar[weakref.WeakValueDictionary[tuple[str, str], Metric]] = weakref.WeakValueDictionary()

    def __init__(self, *, name: str, description: str, kind: str) -> None:
        assert description
        assert name.startswith("intaglio_")
        self.name = name
        self.kind = kind
        self.metrics: list[Metric] = []

    def Metric(self, *, labels: Mapping[str, str]) -> Metric:  # noqa: N802  (Triton's name)
        metric = Metric(self.name, self.kind)
        self.metrics.append(metric)
        Family.shown[self.name, next(iter(labels.values()), "")] = metric
        return metric


class Backend:
    """`triton_python_backend_utils`."""

    MetricFamily = Family


def shown() -> dict[tuple[str, str], float]:
    """Value by name and label, as Triton would show them now."""
    return {key: metric.value for key, metric in Family.shown.items()}
