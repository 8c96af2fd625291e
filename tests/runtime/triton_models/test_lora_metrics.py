"""What a switch's figures become for Prometheus."""

from __future__ import annotations

from typing import Any

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.loras.switch import SwapCounts
from intaglio.triton_models.lora_metrics import LoraMetrics


class Metric:
    """A stand-in for Triton's; counters refuse to go down."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.value = 0.0

    def set(self, value: float) -> None:
        assert self.family.kind == Family.GAUGE
        self.value = value

    def increment(self, value: float) -> None:
        assert self.family.kind == Family.COUNTER
        assert value >= 0
        self.value += value


class Family:
    """A stand-in for Triton's `MetricFamily`."""

    COUNTER, GAUGE = "counter", "gauge"
    made: dict[tuple[str, str], Metric]

    def __init__(self, *, name: str, description: str, kind: str) -> None:
        assert description
        self.name = name
        self.kind = kind

    def Metric(self, *, labels: dict[str, str]) -> Metric:  # noqa: N802  (Triton's name)
        metric = Metric(self)
        Family.made[self.name, labels.get("lora", "")] = metric
        return metric


class Backend:
    MetricFamily = Family


class Switch:
    def __init__(self) -> None:
        self.counts = SwapCounts()
        self.resident: tuple[ResolvedLora, ...] | None = ()


def lora(name: str, weight: float) -> ResolvedLora:
    return ResolvedLora(id=name, sha256="0" * 64, weight=weight)


def test_figures_follow_the_switch() -> None:
    Family.made = {}
    switch: Any = Switch()
    metrics = LoraMetrics(Backend)
    switch.resident = (lora("mara", 1.0),)
    switch.counts.swaps, switch.counts.seconds, switch.counts.last_seconds = 1, 0.5, 0.5
    metrics.report(switch, waited=2.0)
    switch.resident = (lora("night", 0.8),)
    switch.counts.swaps, switch.counts.seconds, switch.counts.last_seconds = 3, 0.9, 0.2
    metrics.report(switch, waited=1.0)
    values = {key: metric.value for key, metric in Family.made.items()}
    assert (values["lora_resident", "mara"], values["lora_resident", "night"]) == (0.0, 0.8)
    assert values["lora_swaps_total", ""] == 3
    assert values["lora_swap_seconds_total", ""] == 0.9
    assert values["lora_swap_seconds", ""] == 0.2
    assert values["lora_longest_wait_seconds", ""] == 2.0
    assert values["lora_swap_failures_total", ""] == 0


def test_nothing_is_resident_after_a_failure() -> None:
    Family.made = {}
    switch: Any = Switch()
    metrics = LoraMetrics(Backend)
    switch.resident = (lora("mara", 1.0),)
    metrics.report(switch, waited=0.0)
    switch.resident, switch.counts.failures = None, 1
    metrics.report(switch, waited=0.0)
    assert Family.made["lora_resident", "mara"].value == 0.0
    assert Family.made["lora_swap_failures_total", ""].value == 1
