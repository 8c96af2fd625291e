"""Policies for the NetworkPolicies of an overlay: closed, but for those who must come in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from intaglio.contract.config import Deployment

from .cluster import Object, of_kind, one, selects
from .production import closed_ports

__all__ = ["nothing_goes_out", "servers_are_reached"]

Objects = Sequence[Object]


def nothing_goes_out(objects: Objects, _: Deployment) -> Iterator[str]:
    policies = [policy["spec"] for policy in of_kind(objects, "NetworkPolicy")]
    closed = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if closed not in policies:
        yield "no policy closes every pod in both directions"
    if any("egress" in policy for policy in policies):
        yield "a policy lets something out"
    rules = [rule for policy in policies for rule in policy.get("ingress", ())]
    if any(not rule.get("from") or not rule.get("ports") for rule in rules):
        yield "a policy lets everybody in, or to every port"
    for peer in (peer for rule in rules for peer in rule.get("from", ())):
        if "ipBlock" in peer or not any(map(_names_something, peer.values())):
            yield f"a policy lets everybody in: {peer}"


def _names_something(selector: Mapping[str, object]) -> bool:
    return bool(selector.get("matchLabels") or selector.get("matchExpressions"))


def servers_are_reached(objects: Objects, _: Deployment) -> Iterator[str]:
    """By clients of the same namespace and of labelled ones, and by Prometheus."""
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    asked = {"http", "grpc"} - closed_ports(objects)
    own = {"kubernetes.io/metadata.name": one(objects, "Namespace")["metadata"]["name"]}
    callers = {
        "a client": (own, {"intaglio-client": "true"}, asked),
        "another namespace's client": (
            {"intaglio-clients": "true"},
            {"intaglio-client": "true"},
            asked,
        ),
        "Prometheus": ({"kubernetes.io/metadata.name": "monitoring"}, {}, {"metrics"}),
    }
    policies = [policy["spec"] for policy in of_kind(objects, "NetworkPolicy")]
    rules = [
        rule
        for policy in policies
        if selects(policy["podSelector"], labels)
        for rule in policy.get("ingress", ())
    ]
    for caller, (namespace, pod, ports) in callers.items():
        let_in = [rule for rule in rules if any(_matches(peer, namespace, pod, own) for peer in rule["from"])]
        if missing := ports - {port["port"] for rule in let_in for port in rule["ports"]}:
            yield f"{caller} does not reach {', '.join(sorted(missing))}"


def _matches(
    peer: Mapping[str, Object], namespace: Mapping[str, str], pod: Mapping[str, str], own: Mapping[str, str]
) -> bool:
    """Whether a peer of a policy in the namespace `own` is a pod with these labels; without a selector of
    namespaces it is one of `own`.
    """
    there = selects(peer["namespaceSelector"], namespace) if "namespaceSelector" in peer else namespace == own
    return there and selects(peer.get("podSelector", {}), pod)
