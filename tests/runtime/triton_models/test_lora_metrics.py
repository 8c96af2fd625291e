"""What a switch's figures become for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.loras.switch import SwapCounts
from intaglio.triton_models.lora_metrics import KEPT_LABELS, LoraMetrics

from .metric_fakes import Backend, Family, Metric, shown


class Switch:
    def __init__(self) -> None:
        self.counts = SwapCounts()
        self.resident: tuple[ResolvedLora, ...] | None = ()


def lora(name: str, weight: float) -> ResolvedLora:
    return ResolvedLora(id=name, sha256="0" * 64, weight=weight)


def test_figures_follow_the_switch() -> None:
    switch: Any = Switch()
    metrics = LoraMetrics(Backend)
    switch.resident = (lora("mara", 1.0),)
    switch.counts.swaps, switch.counts.seconds, switch.counts.last_seconds = 1, 0.5, 0.5
    metrics.report(switch)
    switch.resident = (lora("night", 0.8),)
    switch.counts.swaps, switch.counts.seconds, switch.counts.last_seconds = 3, 0.9, 0.2
    metrics.report(switch)
    assert shown() == {
        ("intaglio_lora_resident", "mara"): 0.0,
        ("intaglio_lora_resident", "night"): 0.8,
        ("intaglio_lora_swaps_total", ""): 3,
        ("intaglio_lora_swap_seconds_total", ""): 0.9,
        ("intaglio_lora_swap_seconds", ""): 0.2,
        ("intaglio_lora_swap_failures_total", ""): 0,
    }


def test_nothing_is_resident_after_a_failure() -> None:
    switch: Any = Switch()
    metrics = LoraMetrics(Backend)
    switch.resident = (lora("mara", 1.0),)
    metrics.report(switch)
    switch.resident, switch.counts.failures = None, 1
    metrics.report(switch)
    assert shown()["intaglio_lora_resident", "mara"] == 0.0
    assert shown()["intaglio_lora_swap_failures_total", ""] == 1


def test_retired_loras_do_not_add_up() -> None:
    switch: Any = Switch()
    metrics = LoraMetrics(Backend)
    for number in range(500):
        switch.resident = (lora("always", 1.0), lora(f"run-{number}", 0.5))
        metrics.report(switch)
        resident = {
            label: value for (name, label), value in shown().items() if name == "intaglio_lora_resident"
        }
        assert len(resident) <= KEPT_LABELS
        assert {label for label, value in resident.items() if value} == {"always", f"run-{number}"}


def test_what_has_not_changed_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value that is set and each increment is a message to Triton's process."""
    switch: Any = Switch()
    metrics = LoraMetrics(Backend)
    switch.resident, switch.counts.swaps = (lora("mara", 1.0), lora("night", 0.5)), 1
    metrics.report(switch)
    sent: list[tuple[str, float]] = []
    for method in ("set", "increment"):
        monkeypatch.setattr(Metric, method, lambda metric, value: sent.append((metric.name, value)))
    metrics.report(switch)
    assert sent == []
    switch.resident, switch.counts.swaps = (lora("mara", 1.0),), 2
    metrics.report(switch)
    assert sent == [("intaglio_lora_swaps_total", 1), ("intaglio_lora_resident", 0.0)]


def test_each_of_several_instances_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, str]] = []
    made = Family.Metric

    def remembered(family: Family, *, labels: Mapping[str, str]) -> Metric:
        asked.append(dict(labels))
        return made(family, labels=labels)

    monkeypatch.setattr(Family, "Metric", remembered)
    metrics = LoraMetrics(Backend, instances=("0", "3"))
    first, second = Switch(), Switch()
    first.resident = (lora("mara", 1.0),)
    second.resident = (lora("mara", 0.5), lora("night", 1.0))
    metrics.report(first, instance="0")
    metrics.report(second, instance="3")
    assert [labels for labels in asked if "lora" in labels] == [
        {"lora": "mara", "gpu": "0"},
        *({"lora": name, "gpu": "3"} for name in sorted(("mara", "night"))),
    ]
    assert {"gpu": "0"} in asked
    shown_now = metrics._resident._values
    metrics.report(Switch(), instance="0")
    assert shown_now == {("0", "mara"): 0.0, ("3", "mara"): 0.5, ("3", "night"): 1.0}
