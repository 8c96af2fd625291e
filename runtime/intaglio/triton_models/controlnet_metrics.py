"""Prometheus metrics of the ControlNets of `diffuse`, on Triton's metrics port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from intaglio.contract.sdxl import control_of
from intaglio.triton_models.metrics import LabelledGauge, MetricGroup, MetricSpec

if TYPE_CHECKING:
    from intaglio.stages.diffuse.controlnets import ResidentControlNets

__all__ = ["CONTROLNET_METRICS", "RESIDENT_CONTROLNET", "ControlNetMetrics"]

CONTROLNET_METRICS: Final = (
    MetricSpec(
        "controlnet_swap_seconds",
        "gauge",
        "seconds that opening ControlNets for a request took the last time",
    ),
    MetricSpec("controlnet_swap_seconds_total", "counter", "seconds that all these took"),
    MetricSpec(
        "controlnet_swaps_total", "counter", "requests for which ControlNets were opened that were not open"
    ),
    MetricSpec(
        "controlnet_swap_failures_total", "counter", "requests for which a ControlNet could not be opened"
    ),
)
RESIDENT_CONTROLNET: Final = MetricSpec(
    "controlnet_resident", "gauge", "1 for a ControlNet that is open, otherwise 0", label="control"
)
_MOST: Final = 1024
"""Labels; a deployment has far fewer ControlNets."""


class ControlNetMetrics:
    """Reports which are open; `pb` is `triton_python_backend_utils`."""

    def __init__(self, pb: Any) -> None:
        self._metrics = MetricGroup(pb, CONTROLNET_METRICS)
        self._resident = LabelledGauge(pb, RESIDENT_CONTROLNET, most=_MOST)

    def report(self, controlnets: ResidentControlNets) -> None:
        """The figures of `controlnets` now."""
        counts = controlnets.counts
        self._metrics.set("controlnet_swap_seconds", counts.last_seconds)
        self._metrics.count("controlnet_swap_seconds_total", counts.seconds)
        self._metrics.count("controlnet_swaps_total", counts.swaps)
        self._metrics.count("controlnet_swap_failures_total", counts.failures)
        self._resident.set(dict.fromkeys(map(control_of, controlnets.resident), 1.0))
