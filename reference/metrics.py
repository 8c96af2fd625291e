"""The table of our own Prometheus metrics."""

from __future__ import annotations

from typing import Final

from intaglio.triton_models.certificate_metric import CERTIFICATE_EXPIRES
from intaglio.triton_models.controlnet_metrics import CONTROLNET_METRICS, RESIDENT_CONTROLNET
from intaglio.triton_models.drawing_report import INSTANCE_METRICS
from intaglio.triton_models.lora_metrics import LORA_METRICS, RESIDENT_LORA
from intaglio.triton_models.metrics import INSTANCE_LABEL, MetricSpec
from intaglio.triton_models.request_metrics import REQUEST_METRICS
from intaglio.triton_models.span_metrics import SPAN_METRICS
from reference.tables import code, table

__all__ = ["ALL_METRICS", "metrics"]

ALL_METRICS: Final[tuple[MetricSpec, ...]] = (
    *REQUEST_METRICS,
    *INSTANCE_METRICS,
    RESIDENT_LORA,
    *LORA_METRICS,
    RESIDENT_CONTROLNET,
    *CONTROLNET_METRICS,
    *SPAN_METRICS,
    CERTIFICATE_EXPIRES,
)


def metrics() -> str:
    """One row a metric."""
    rows = ((code(one.full_name), one.kind, _labels(one), one.when.value, one.doc) for one in ALL_METRICS)
    return table(("metric", "type", "label", "there when", "meaning"), rows)


def _labels(metric: MetricSpec) -> str:
    own = [code(metric.label)] if metric.label else []
    return ", ".join([*own, f"({code(INSTANCE_LABEL)})"] if metric.each else own)
