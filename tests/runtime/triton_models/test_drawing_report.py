"""A server has the metrics that the table says."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from intaglio.contract.lora_registry import ResolvedLora
from intaglio.loras.switch import SwapCounts
from intaglio.stages.diffuse.controlnets import ControlNetCounts
from intaglio.telemetry.journal import Telemetry
from intaglio.telemetry.settings import TelemetrySettings
from intaglio.triton_models.certificate_metric import EXPIRES_VARIABLE
from intaglio.triton_models.drawing_report import Reported, drawing_report
from intaglio.triton_models.metrics import When, conditions_of
from intaglio.triton_models.request_metrics import RequestCounts
from intaglio.triton_models.turnstile import Turnstile
from reference.metrics import ALL_METRICS

from .metric_fakes import Backend, shown

OPTIONAL = [when for when in When if when is not When.ALWAYS]
SERVERS = [
    frozenset(chosen)
    for count in range(len(OPTIONAL) + 1)
    for chosen in itertools.combinations(OPTIONAL, count)
]
"""What holds for a server, in all combinations."""


def reported(holds: frozenset[When], label: str = "") -> Reported:
    """Something that draws, with all that the server may have."""
    switch = SimpleNamespace(counts=SwapCounts(), resident=(ResolvedLora(id="a", sha256="0" * 64, weight=1),))
    networks = ("controlnet.pose",) if When.CONTROLNETS in holds else ()
    stage: Any = SimpleNamespace(
        loras=switch if When.LORAS_CHOSEN in holds else None,
        controlnets=SimpleNamespace(counts=ControlNetCounts(), resident=networks),
    )
    seat: Any = SimpleNamespace(number=int(label), up=True, restarted=0, moved=0) if label else None
    return Reported(stage, RequestCounts(), label, seat)


@pytest.mark.parametrize(
    "holds", SERVERS, ids=lambda holds: "+".join(sorted(one.name for one in holds)) or "0"
)
def test_a_server_has_the_metrics_whose_condition_holds(
    holds: frozenset[When], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no others: none is missing in the table, and none has the wrong condition there."""
    if When.TLS in holds:
        monkeypatch.setenv(EXPIRES_VARIABLE, "1796044968")
    drawing = [reported(holds, label) for label in (("0", "1") if When.INSTANCES in holds else ("",))]
    turnstile: Any = Turnstile(overtakes=1, capacity=0)
    telemetry = Telemetry(TelemetrySettings(), stage="diffuse")
    conditions = {When.ALWAYS, *holds}
    report = drawing_report(Backend, turnstile, RequestCounts(), drawing, telemetry, conditions=conditions)
    report()
    expected = {metric.full_name for metric in ALL_METRICS if metric.when in conditions}
    assert {name for name, _ in shown()} == expected


@pytest.mark.parametrize(
    ("server", "held"),
    [
        ({}, set()),
        ({"swaps": True}, {When.LORAS_CHOSEN}),
        ({"controlnets": {"pose": "pose"}}, {When.CONTROLNETS}),
        ({"instances": True}, {When.INSTANCES}),
        ({"tls": True}, {When.TLS}),
    ],
)
def test_each_condition_has_its_own_reason(server: dict[str, Any], held: set[When]) -> None:
    facts = {"swaps": False, "controlnets": {}, "instances": False, "tls": False, **server}
    build: Any = SimpleNamespace(swaps=facts["swaps"], controlnets=facts["controlnets"])
    found = conditions_of(build, instances=facts["instances"], tls=facts["tls"])
    assert found == {When.ALWAYS, *held}
