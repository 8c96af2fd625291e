"""The report of all metrics of `diffuse`: of its queue, and of whatever draws."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from intaglio.telemetry.journal import Telemetry
from intaglio.triton_models.certificate_metric import CertificateMetric, certificate_expiry
from intaglio.triton_models.controlnet_metrics import ControlNetMetrics, ControlNetState
from intaglio.triton_models.crew import Seat
from intaglio.triton_models.lora_metrics import LoraMetrics, LoraSwitchState
from intaglio.triton_models.metrics import MetricGroup, MetricSpec, When
from intaglio.triton_models.reporter import Report
from intaglio.triton_models.request_metrics import RequestCounts, RequestMetrics
from intaglio.triton_models.span_metrics import SpanMetrics
from intaglio.triton_models.turnstile import Turnstile

__all__ = ["INSTANCE_METRICS", "Reported", "drawing_report", "reported_seats"]

INSTANCE_METRICS: Final = (
    MetricSpec(
        "instance_up",
        "gauge",
        "1 while an instance can draw, of several; 0 while it is lost",
        each=True,
        when=When.INSTANCES,
    ),
    MetricSpec(
        "instance_restarts_total",
        "counter",
        "times that a lost instance was started again",
        each=True,
        when=When.INSTANCES,
    ),
    MetricSpec(
        "pictures_moved_total",
        "counter",
        "pictures that an instance had begun when it was lost, and that go on elsewhere",
        each=True,
        when=When.INSTANCES,
    ),
)


class _Stage(Protocol):
    @property
    def loras(self) -> LoraSwitchState | None: ...
    @property
    def controlnets(self) -> ControlNetState: ...


@dataclass(frozen=True, slots=True)
class Reported:
    """Something that draws."""

    stage: _Stage
    work: RequestCounts
    label: str = ""
    """Empty for the only one."""
    seat: Seat | None = None
    """Of one of several instances."""


def reported_seats(seats: Sequence[Seat]) -> list[Reported]:
    """Several instances, as they are reported."""
    return [Reported(seat.instance, seat.work, seat.label, seat) for seat in seats]


def drawing_report(
    pb: Any,
    turnstile: Turnstile[Any, Any],
    counts: RequestCounts,
    drawing: Sequence[Reported],
    telemetry: Telemetry,
    *,
    conditions: Collection[When],
) -> Report:
    """Make the metrics that a server has where `conditions` hold, and what reports them; `pb` is
    `triton_python_backend_utils`.
    """
    labels = [one.label for one in drawing]
    requests = RequestMetrics(pb, instances=labels)
    loras = LoraMetrics(pb, instances=labels) if When.LORAS_CHOSEN in conditions else None
    controlnets = ControlNetMetrics(pb, instances=labels)
    spans = SpanMetrics(pb)
    expires = certificate_expiry() if When.TLS in conditions else None
    certificate = None if expires is None else CertificateMetric(pb, expires)
    instances = None
    if When.INSTANCES in conditions:
        instances = MetricGroup(pb, INSTANCE_METRICS, instances=labels)

    def report() -> None:
        depth, oldest_wait = turnstile.waiting()
        requests.report(counts.now, depth=depth, oldest_wait=oldest_wait)
        spans.report(telemetry.span_counts)
        if certificate is not None:
            certificate.report()
        for one in drawing:
            running = turnstile.running(None if one.seat is None else one.seat.number)
            requests.report_drawing(one.work.now, running=running, instance=one.label)
            if loras is not None and one.stage.loras is not None:
                loras.report(one.stage.loras, instance=one.label)
            controlnets.report(one.stage.controlnets, instance=one.label)
            if instances is not None and one.seat is not None:
                instances.set("instance_up", float(one.seat.up), instance=one.label)
                instances.count("instance_restarts_total", one.seat.restarted, instance=one.label)
                instances.count("pictures_moved_total", one.seat.moved, instance=one.label)

    return report
