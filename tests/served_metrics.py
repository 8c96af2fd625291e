"""The metrics of a server, by the table of all and by its deployment."""

from __future__ import annotations

from intaglio.contract.config import Deployment
from intaglio.triton_models.metrics import MetricSpec, conditions_of
from reference.metrics import ALL_METRICS

__all__ = ["served_metrics"]


def served_metrics(deployment: Deployment, *, tls: bool = False) -> list[MetricSpec]:
    """Those of a server of `deployment`; ones with a label of their own once it has a value."""
    server = deployment.server
    instances = server.gpus is not None or server.instances > 1
    conditions = conditions_of(deployment, instances=instances, tls=tls)
    return [metric for metric in ALL_METRICS if metric.when in conditions]
