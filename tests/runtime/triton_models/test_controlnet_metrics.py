"""What the open ControlNets become for Prometheus."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from intaglio.stages.diffuse.controlnets import ControlNetCounts
from intaglio.triton_models.controlnet_metrics import ControlNetMetrics

from .metric_fakes import Backend, shown


def test_figures_follow_what_is_open() -> None:
    controlnets: Any = SimpleNamespace(
        counts=ControlNetCounts(), resident=("controlnet.pose", "controlnet_union.canny")
    )
    metrics = ControlNetMetrics(Backend)
    metrics.report(controlnets)
    controlnets.resident = ("controlnet_union.canny", "controlnet.depth")
    controlnets.counts = ControlNetCounts(swaps=2, failures=1, seconds=1.5, last_seconds=0.5)
    metrics.report(controlnets)
    assert shown() == {
        ("intaglio_controlnet_resident", "pose"): 0.0,
        ("intaglio_controlnet_resident", "canny"): 1.0,
        ("intaglio_controlnet_resident", "depth"): 1.0,
        ("intaglio_controlnet_swaps_total", ""): 2,
        ("intaglio_controlnet_swap_seconds_total", ""): 1.5,
        ("intaglio_controlnet_swap_seconds", ""): 0.5,
        ("intaglio_controlnet_swap_failures_total", ""): 1,
    }
