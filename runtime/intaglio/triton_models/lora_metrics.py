"""Prometheus metrics of the LoRAs of `diffuse`, on Triton's metrics port."""

from __future__ import annotations

from typing import Any, Final

from intaglio.loras.switch import LoraSwitch
from intaglio.triton_models.metrics import LabelledGauge, MetricGroup

__all__ = ["KEPT_LABELS", "LoraMetrics"]

_GAUGES: Final = {"lora_swap_seconds": "seconds that the last swap of LoRAs took"}
_COUNTERS: Final = {
    "lora_swap_seconds_total": "seconds spent on swaps of LoRAs",
    "lora_swaps_total": "swaps of the resident LoRAs",
    "lora_swap_failures_total": "LoRA sets that could not be applied",
}
KEPT_LABELS: Final = 64
"""LoRAs that have a metric. With one more, only the resident ones are left. Retired ids would add up."""


class LoraMetrics:
    """Reports the figures of a switch; `pb` is `triton_python_backend_utils`."""

    def __init__(self, pb: Any) -> None:
        self._metrics = MetricGroup(pb, gauges=_GAUGES, counters=_COUNTERS)
        description = "weight of each resident LoRA; 0 once it is no longer resident"
        self._resident = LabelledGauge(
            pb, "lora_resident", description=description, label="lora", most=KEPT_LABELS
        )

    def report(self, switch: LoraSwitch) -> None:
        """The figures of `switch` now."""
        counts = switch.counts
        self._metrics.set("lora_swap_seconds", counts.last_seconds)
        self._metrics.count("lora_swap_seconds_total", counts.seconds)
        self._metrics.count("lora_swaps_total", counts.swaps)
        self._metrics.count("lora_swap_failures_total", counts.failures)
        self._resident.set({lora.id: lora.weight for lora in switch.resident or ()})
