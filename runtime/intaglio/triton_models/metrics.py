"""Metrics of our own on Triton's metrics port.

Every name begins with `intaglio_`. `pb` is `triton_python_backend_utils` throughout.
"""

from __future__ import annotations

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
        if total != self._values[name]:
            self._metrics[name].increment(total - self._values[name])
            self._values[name] = total


class LabelledGauge:
    """A gauge for each value of one label; at most `most` of them are shown."""

    def __init__(self, pb: Any, name: str, *, description: str, label: str, most: int) -> None:
        """`most` is no less than the labels of one call of `set`."""
        self._pb = pb
        self._name = PREFIX + name
        self._description = description
        self._label = label
        self._most = most
        self._family = self._make_family()
        self._metrics: dict[str, Any] = {}
        self._values: dict[str, float] = {}

    def set(self, values: Mapping[str, float]) -> None:
        """These labels have `values`; all others that are shown are 0."""
        if len({*self._metrics, *values}) > self._most:
            # Triton forgets a metric only with its family. The old family has to go before a new one of the
            # same name is made, since both would be one object.
            self._metrics.clear()
            self._values.clear()
            self._family = None
            self._family = self._make_family()
        for name in {*self._metrics, *values}:
            value = values.get(name, 0.0)
            if name not in self._metrics:
                self._metrics[name] = self._family.Metric(labels={self._label: name})
            elif value == self._values[name]:
                continue  # each value that is set is a message to Triton's process
            self._metrics[name].set(value)
            self._values[name] = value

    def _make_family(self) -> Any:
        family = self._pb.MetricFamily
        return family(name=self._name, description=self._description, kind=family.GAUGE)
