"""Prometheus metrics of the LoRAs of `diffuse`, on Triton's metrics port."""

from __future__ import annotations

from typing import Any, Final

from intaglio.loras.switch import LoraSwitch

__all__ = ["LoraMetrics"]

_GAUGES: Final = {
    "lora_swap_seconds": "seconds that the last swap of LoRAs took",
    "lora_longest_wait_seconds": "longest time that a request waited for its turn since the start",
}
_COUNTERS: Final = {
    "lora_swap_seconds_total": "seconds spent on swaps of LoRAs",
    "lora_swaps_total": "swaps of the resident LoRAs",
    "lora_swap_failures_total": "LoRA sets that could not be applied",
}


class LoraMetrics:
    """Reports the figures of a switch; `pb` is `triton_python_backend_utils`."""

    def __init__(self, pb: Any) -> None:
        family = pb.MetricFamily
        self._resident_family = family(
            name="lora_resident",
            description="weight of each resident LoRA; 0 once it is no longer resident",
            kind=family.GAUGE,
        )
        self._families = {
            name: family(name=name, description=text, kind=family.GAUGE) for name, text in _GAUGES.items()
        }
        self._families |= {
            name: family(name=name, description=text, kind=family.COUNTER) for name, text in _COUNTERS.items()
        }
        self._metrics = {name: made.Metric(labels={}) for name, made in self._families.items()}
        self._resident: dict[str, Any] = {}
        self._counted = dict.fromkeys(_COUNTERS, 0.0)
        self._longest_wait = 0.0

    def report(self, switch: LoraSwitch, *, waited: float) -> None:
        """Report after a request that waited `waited` seconds for its turn."""
        self._longest_wait = max(self._longest_wait, waited)
        self._metrics["lora_longest_wait_seconds"].set(self._longest_wait)
        self._metrics["lora_swap_seconds"].set(switch.counts.last_seconds)
        counts = switch.counts
        totals = {
            "lora_swap_seconds_total": counts.seconds,
            "lora_swaps_total": counts.swaps,
            "lora_swap_failures_total": counts.failures,
        }
        for name, value in totals.items():
            self._metrics[name].increment(value - self._counted[name])
            self._counted[name] = value
        weights = {lora.id: lora.weight for lora in switch.resident or ()}
        for lora in {*weights, *self._resident}:
            if lora not in self._resident:
                self._resident[lora] = self._resident_family.Metric(labels={"lora": lora})
            self._resident[lora].set(weights.get(lora, 0.0))
