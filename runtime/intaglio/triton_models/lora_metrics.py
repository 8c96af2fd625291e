"""Prometheus metrics of the LoRAs of `diffuse`, on Triton's metrics port."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.loras.switch import SwapCounts
from intaglio.triton_models.metrics import LabelledGauge, MetricGroup, MetricSpec, When

__all__ = ["KEPT_LABELS", "LORA_METRICS", "RESIDENT_LORA", "LoraMetrics", "LoraSwitchState"]

LORA_METRICS: Final = (
    MetricSpec(
        "lora_swap_seconds",
        "gauge",
        "seconds that the last change of the resident LoRAs took",
        each=True,
        when=When.LORAS_CHOSEN,
    ),
    MetricSpec(
        "lora_swap_seconds_total",
        "counter",
        "seconds that all these changes took",
        each=True,
        when=When.LORAS_CHOSEN,
    ),
    MetricSpec(
        "lora_swaps_total",
        "counter",
        "changes of the resident LoRAs",
        each=True,
        when=When.LORAS_CHOSEN,
    ),
    MetricSpec(
        "lora_swap_failures_total",
        "counter",
        "sets of LoRAs that could not be applied",
        each=True,
        when=When.LORAS_CHOSEN,
    ),
)
RESIDENT_LORA: Final = MetricSpec(
    "lora_resident",
    "gauge",
    "weight of a resident LoRA; 0 once it is no longer resident",
    label="lora",
    each=True,
    when=When.LORAS_CHOSEN,
)
KEPT_LABELS: Final = 64
"""LoRAs of an instance that have a metric. With one more, only the resident ones are left. Retired ids would
add up.
"""


class LoraSwitchState(Protocol):
    """What is known of a switch: its own figures, or those of another process."""

    @property
    def counts(self) -> SwapCounts:
        """What it has done."""

    @property
    def resident(self) -> tuple[ResolvedLora, ...] | None:
        """The set in the engines; None while nothing is."""


class LoraMetrics:
    """Reports the figures of switches; `pb` is `triton_python_backend_utils`."""

    def __init__(self, pb: Any, *, instances: Sequence[str] = ("",)) -> None:
        self._metrics = MetricGroup(pb, LORA_METRICS, instances=instances)
        self._resident = LabelledGauge(pb, RESIDENT_LORA, most=KEPT_LABELS * len(instances))

    def report(self, switch: LoraSwitchState, *, instance: str = "") -> None:
        """The figures of the `switch` of `instance` now."""
        counts = switch.counts
        self._metrics.set("lora_swap_seconds", counts.last_seconds, instance=instance)
        self._metrics.count("lora_swap_seconds_total", counts.seconds, instance=instance)
        self._metrics.count("lora_swaps_total", counts.swaps, instance=instance)
        self._metrics.count("lora_swap_failures_total", counts.failures, instance=instance)
        resident = {lora.id: lora.weight for lora in switch.resident or ()}
        self._resident.set(resident, instance=instance)
