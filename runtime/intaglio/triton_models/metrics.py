"""Metrics of our own on Triton's metrics port.

Every name begins with `intaglio_`. `pb` is `triton_python_backend_utils` throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, Protocol

__all__ = [
    "INSTANCE_LABEL",
    "PREFIX",
    "LabelledGauge",
    "MetricGroup",
    "MetricSpec",
    "When",
    "conditions_of",
    "instance_labels",
]

PREFIX: Final = "intaglio_"
INSTANCE_LABEL: Final = "gpu"
"""Of metrics of one of several instances that draw: CUDA's index of its card, or its number on the CPU."""


class When(Enum):
    """Which servers have a metric. docs/operating.md shows the texts."""

    ALWAYS = "always"
    LORAS_CHOSEN = "requests choose LoRAs"
    CONTROLNETS = "there are ControlNets"
    INSTANCES = "`server.gpus` is set, or `server.instances` is above 1"
    TLS = "`intaglio serve` has TLS"


class _Build(Protocol):
    """A manifest or a deployment."""

    @property
    def swaps(self) -> bool: ...
    @property
    def controlnets(self) -> Mapping[str, object]: ...


def conditions_of(build: _Build, *, instances: bool, tls: bool) -> frozenset[When]:
    """What holds for a server of `build`. `instances`: `diffuse` starts processes that draw. `tls`:
    `intaglio serve` runs it, with TLS.
    """
    holds = {
        When.ALWAYS: True,
        When.LORAS_CHOSEN: build.swaps,
        When.CONTROLNETS: bool(build.controlnets),
        When.INSTANCES: instances,
        When.TLS: tls,
    }
    return frozenset(when for when in When if holds[when])


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric. docs/operating.md is generated from the tables of these."""

    name: str
    """Without the prefix."""
    kind: Literal["gauge", "counter"]
    doc: str
    label: str = ""
    """The one label; empty for none."""
    each: bool = False
    """Whether each of several instances has its own, with the label `gpu`."""
    when: When = When.ALWAYS
    """Which servers have it. A metric with a `label` appears with its first value."""

    @property
    def full_name(self) -> str:
        """The name that Prometheus sees."""
        return PREFIX + self.name

    def family(self, pb: Any) -> Any:
        """Triton's `MetricFamily` of the metric."""
        made = pb.MetricFamily
        kind = made.GAUGE if self.kind == "gauge" else made.COUNTER
        return made(name=self.full_name, description=self.doc, kind=kind)


class MetricGroup:
    """Gauges and counters by name without the prefix, one for each of the `instances` that draw.

    The only one of a server, "", has no label; others have their name as the label `gpu`.
    """

    def __init__(self, pb: Any, specs: Sequence[MetricSpec], *, instances: Sequence[str] = ("",)) -> None:
        made = {spec.name: spec.family(pb) for spec in specs}
        self._families = made  # kept: Triton removes a family with its last reference
        self._metrics = {}
        for name, family in made.items():
            for instance in instances:
                self._metrics[name, instance] = family.Metric(labels=instance_labels(instance))
        self._values = dict.fromkeys(self._metrics, 0.0)

    def set(self, name: str, value: float, *, instance: str = "") -> None:
        """The gauge `name` is `value` now."""
        if value != self._values[name, instance]:  # each change is a message to Triton's process
            self._metrics[name, instance].set(value)
            self._values[name, instance] = value

    def count(self, name: str, total: float, *, instance: str = "") -> None:
        """The counter `name` has come to `total`."""
        before = self._values[name, instance]
        if total != before:
            self._metrics[name, instance].increment(total - before)
            self._values[name, instance] = total


class LabelledGauge:
    """A gauge for each value of one label, of each instance; at most `most` of them are shown."""

    def __init__(self, pb: Any, spec: MetricSpec, *, most: int) -> None:
        """`most` is no less than the labels of one call of `set`."""
        self._pb = pb
        self._spec = spec
        self._most = most
        self._family = spec.family(pb)
        self._metrics: dict[tuple[str, str], Any] = {}
        """By instance and label."""
        self._values: dict[tuple[str, str], float] = {}

    def set(self, values: Mapping[str, float], *, instance: str = "") -> None:
        """These labels have `values`; all others of this instance that are shown are 0."""
        wanted = {(instance, name): value for name, value in values.items()}
        others = {key: value for key, value in self._values.items() if key[0] != instance}
        if len({*self._metrics, *wanted}) > self._most:
            # Triton forgets a metric only with its family. The old family has to go before a new one of the
            # same name is made, since both would be one object.
            self._metrics.clear()
            self._values.clear()
            self._family = None
            self._family = self._spec.family(self._pb)
            wanted |= {key: value for key, value in others.items() if value}
        shown = {key for key in self._metrics if key[0] == instance}
        for key in sorted({*shown, *wanted}):
            value = wanted.get(key, 0.0)
            if key not in self._metrics:
                labels = {self._spec.label: key[1], **instance_labels(key[0])}
                self._metrics[key] = self._family.Metric(labels=labels)
            elif value == self._values[key]:
                continue  # each value that is set is a message to Triton's process
            self._metrics[key].set(value)
            self._values[key] = value


def instance_labels(instance: str) -> dict[str, str]:
    """The labels that tell what `instance` says from what others say."""
    return {INSTANCE_LABEL: instance} if instance else {}
