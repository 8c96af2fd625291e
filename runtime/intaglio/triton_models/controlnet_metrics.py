"""Prometheus metrics of the ControlNets of `diffuse`, on Triton's metrics port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from intaglio.contract.sdxl import control_of
from intaglio.triton_models.metrics import LabelledGauge, MetricGroup, MetricSpec, When

if TYPE_CHECKING:
    from intaglio.stages.diffuse.controlnets import ControlNetCounts

__all__ = ["CONTROLNET_METRICS", "RESIDENT_CONTROLNET", "ControlNetMetrics", "ControlNetState"]

CONTROLNET_METRICS: Final = (
    MetricSpec(
        "controlnet_swap_seconds",
        "gauge",
        "seconds that opening ControlNets for a request took the last time",
        each=True,
    ),
    MetricSpec("controlnet_swap_seconds_total", "counter", "seconds that all these took", each=True),
    MetricSpec(
        "controlnet_swaps_total",
        "counter",
        "requests for which ControlNets were opened that were not open",
        each=True,
    ),
    MetricSpec(
        "controlnet_swap_failures_total",
        "counter",
        "requests for which a ControlNet could not be opened",
        each=True,
    ),
)
RESIDENT_CONTROLNET: Final = MetricSpec(
    "controlnet_resident",
    "gauge",
    "1 for a ControlNet that is open, otherwise 0",
    label="control",
    each=True,
    when=When.CONTROLNETS,
)
_MOST: Final = 1024
"""Labels of each instance; a deployment has far fewer ControlNets."""


class ControlNetState(Protocol):
    """What is known of open ControlNets: those of this process, or of another one."""

    @property
    def counts(self) -> ControlNetCounts:
        """What was opened and closed."""

    @property
    def resident(self) -> tuple[str, ...]:
        """Networks of those that are open."""


class ControlNetMetrics:
    """Reports which are open; `pb` is `triton_python_backend_utils`."""

    def __init__(self, pb: Any, *, instances: Sequence[str] = ("",)) -> None:
        self._metrics = MetricGroup(pb, CONTROLNET_METRICS, instances=instances)
        self._resident = LabelledGauge(pb, RESIDENT_CONTROLNET, most=_MOST * len(instances))

    def report(self, controlnets: ControlNetState, *, instance: str = "") -> None:
        """The figures of the `controlnets` of `instance` now."""
        counts = controlnets.counts
        self._metrics.set("controlnet_swap_seconds", counts.last_seconds, instance=instance)
        self._metrics.count("controlnet_swap_seconds_total", counts.seconds, instance=instance)
        self._metrics.count("controlnet_swaps_total", counts.swaps, instance=instance)
        self._metrics.count("controlnet_swap_failures_total", counts.failures, instance=instance)
        resident = dict.fromkeys(map(control_of, controlnets.resident), 1.0)
        self._resident.set(resident, instance=instance)
