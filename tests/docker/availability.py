"""Policies that keep servers there: stops, rollouts, drains of nodes, and scaling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from intaglio.contract.config import Deployment

from .cluster import Object, container_of, one, pod_of

__all__ = [
    "a_stop_lets_requests_finish",
    "lost_metrics_stop_no_server",
    "nodes_can_be_drained",
    "rollouts_keep_every_server",
]

Objects = Sequence[Object]
SELF_ENDING_SECONDS: Final = 10
"""What `intaglio serve` may take beside `server.drain_seconds` (docs/operating.md)."""
LONGEST_PICTURE_SECONDS: Final = 120
"""More than the longest request that `limits` allows takes on the slowest card of an overlay: a projection
for 240 steps of 1024x1024 on an RTX 4060 Ti (docs/performance.md).
"""


def a_stop_lets_requests_finish(objects: Objects, deployment: Deployment) -> Iterator[str]:
    pod, container = pod_of(objects, "Deployment"), container_of(objects, "Deployment")
    drain = deployment.server.drain_seconds
    pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    grace = pod.get("terminationGracePeriodSeconds", 30)
    if drain <= LONGEST_PICTURE_SECONDS:
        yield f"server.drain_seconds {drain}: the longest picture may take {LONGEST_PICTURE_SECONDS} s"
    if pause < 5:
        yield "preStop: sleep some seconds, until no service names the pod"
    if grace <= pause + drain + SELF_ENDING_SECONDS:
        yield f"terminationGracePeriodSeconds {grace}: preStop and the drain take {pause + drain} s"


def rollouts_keep_every_server(objects: Objects, _: Deployment) -> Iterator[str]:
    spec = one(objects, "Deployment")["spec"]
    if spec["strategy"].get("rollingUpdate", {}).get("maxUnavailable") != 0:
        yield "rollingUpdate.maxUnavailable must be 0"
    if "replicas" in spec:
        yield "replicas: KEDA sets their number, and an apply would reset it"


def nodes_can_be_drained(objects: Objects, _: Deployment) -> Iterator[str]:
    spec = one(objects, "PodDisruptionBudget")["spec"]
    if spec.get("maxUnavailable") in (None, 0, "0%") or "minAvailable" in spec:
        yield "PodDisruptionBudget: a node with the only server is never drained; allow one to be away"
    if spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
        yield "PodDisruptionBudget: a server that does not become ready keeps its node"


def lost_metrics_stop_no_server(objects: Objects, _: Deployment) -> Iterator[str]:
    spec = one(objects, "ScaledObject")["spec"]
    for trigger in spec["triggers"]:
        if trigger["metadata"].get("ignoreNullValues") != "false":
            yield f"trigger {trigger['name']}: servers that Prometheus lost would count as idle"
    if spec.get("fallback", {}).get("behavior") != "currentReplicasIfHigher":
        yield "fallback: a lost Prometheus would stop servers"
