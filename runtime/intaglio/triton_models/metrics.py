"""Metrics of our own on Triton's metrics port.

Every name begins with `intaglio_`. `pb` is `triton_python_backend_utils` throughout.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["PREFIX", "LabelledGauge", "MetricGroup"]

PREFIX: Final = "intaglio_"


class MetricGroup:
    """Gauges and counters without labels, by name without the prefix."""

    def __init__(self, pb: Any, *, gauges: Mapping[str, str], counters: Mapping[str, str]) -> None:
        """Both map a name to its description."""
        family = pb.MetricFamily
        made = {
            name: family(name=PREFIX + name, description=text, kind=family.GAUGE)
            for name, text in gauges.items()
        }
        for name, text in counters.items():
            made[name] = family(name=PREFIX + name, description=text, kind=family.COUNTER)
        self._families = made  # kept: Triton removes a family with its last reference
        self._metrics = {name: one.Metric(labels={}) for name, one in made.items()}
        self._values = dict.fromkeys(made, 0.0)

    def set(self, name: str, value: float) -> None:
        """The gauge `name` is `value` now."""
        if value != self._values[name]:  # each change is a message to Triton's process
            self._metrics[name].set(value)
            self._values[name] = value

    def count(self, name: str, total: float) -> None:
        """The counter `name` has come to `total`."""
        self._metrics[name].increment(total - self._values[name])
        self._values[name] = total


class LabelledGauge:
    """A gauge for each value of one label. The `most` labels that were set last are kept."""

    def __init__(self, pb: Any, name: str, *, description: str, label: str, most: int) -> None:
        family = pb.MetricFamily
        self._family = family(name=PREFIX + name, description=description, kind=family.GAUGE)
        self._label = label
        self._most = most
        self._metrics: OrderedDict[str, Any] = OrderedDict()

    def set(self, values: Mapping[str, float]) -> None:
        """These labels have `values`; all others are 0."""
        for name, metric in self._metrics.items():
            if name not in values:
                metric.set(0.0)
        for name, value in values.items():
            if name not in self._metrics:
                self._metrics[name] = self._family.Metric(labels={self._label: name})
            self._metrics[name].set(value)
            self._metrics.move_to_end(name)
        while len(self._metrics) > self._most:
            self._metrics.popitem(last=False)  # Triton removes the metric with its last reference
