"""Prometheus metrics of the LoRAs of `diffuse`, on Triton's metrics port."""

from __future__ import annotations

from typing import Any, Final

from intaglio.loras.switch import LoraSwitch
from intaglio.triton_models.metrics import LabelledGauge, MetricGroup, MetricSpec

__all__ = ["KEPT_LABELS", "LORA_METRICS", "RESIDENT_LORA", "LoraMetrics"]

LORA_METRICS: Final = (
    MetricSpec("lora_swap_seconds", "gauge", "seconds that the last change of the resident LoRAs took"),
    MetricSpec("lora_swap_seconds_total", "counter", "seconds that all these changes took"),
    MetricSpec("lora_swaps_total", "counter", "changes of the resident LoRAs"),
    MetricSpec("lora_swap_failures_total", "counter", "sets of LoRAs that could not be applied"),
)
RESIDENT_LORA: Final = MetricSpec(
    "lora_resident", "gauge", "weight of a resident LoRA; 0 once it is no longer resident", label="lora"
)
KEPT_LABELS: Final = 64
"""LoRAs that have a metric. With one more, only the resident ones are left. Retired ids would add up."""


class LoraMetrics:
    """Reports the figures of a switch; `pb` is `triton_python_backend_utils`."""

    def __init__(self, pb: Any) -> None:
        self._metrics = MetricGroup(pb, LORA_METRICS)
        self._resident = LabelledGauge(pb, RESIDENT_LORA, most=KEPT_LABELS)

    def report(self, switch: LoraSwitch) -> None:
        """The figures of `switch` now."""
        counts = switch.counts
        self._metrics.set("lora_swap_seconds", counts.last_seconds)
        self._metrics.count("lora_swap_seconds_total", counts.seconds)
        self._metrics.count("lora_swaps_total", counts.swaps)
        self._metrics.count("lora_swap_failures_total", counts.failures)
        self._resident.set({lora.id: lora.weight for lora in switch.resident or ()})
