"""Policies for servers that other machines reach: only gRPC is open, and it asks for certificates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from intaglio.contract.config import Deployment

from .cluster import Object, container_of, of_kind, pod_of

__all__ = [
    "HTTP_FOR_HEALTH",
    "closed_ports",
    "inner_ports",
    "is_production",
    "problem_of_secret",
    "servers_of_cards_are_closed",
    "tls_files_are_a_secret",
]

Objects = Sequence[Object]
FILES: Final = ("--tls-cert", "--tls-key", "--tls-ca")
HTTP_FOR_HEALTH: Final = "--http-host=0.0.0.0"
"""Opens HTTP to a proxy in production, where it tells only health."""
PROXY: Final = [{"podSelector": {"matchLabels": {"app.kubernetes.io/component": "proxy"}}}]
"""Peers of a network policy: Envoy's pods in the same namespace."""


def is_production(objects: Objects) -> bool:
    """Whether the servers are started with `--production`."""
    return "--production" in container_of(objects, "Deployment")["args"]


def closed_ports(objects: Objects) -> set[str]:
    """Ports that no client reaches."""
    return {"http"} if is_production(objects) else set()


def inner_ports(objects: Objects) -> set[str]:
    """Ports that nobody but the pod itself reaches."""
    return set() if HTTP_FOR_HEALTH in container_of(objects, "Deployment")["args"] else closed_ports(objects)


def servers_of_cards_are_closed(objects: Objects, deployment: Deployment) -> Iterator[str]:
    """The demo on the CPU has a Triton that `--production` refuses."""
    if deployment.target != "cpu" and not is_production(objects):
        yield "args: a server for other machines needs --production"
    closed = closed_ports(objects)
    container = container_of(objects, "Deployment")
    if found := inner_ports(objects) & {port["name"] for port in container["ports"]}:
        yield f"containerPorts: {', '.join(found)} listens on the pod's loopback only"
    for service in of_kind(objects, "Service"):
        name = service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            if port["targetPort"] in closed:
                yield f"Service {name}: nobody answers at {port['targetPort']}"
            if closed and port.get("appProtocol") == "kubernetes.io/h2c":
                yield f"Service {name}: gRPC is encrypted, and h2c is plain text"
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", ()):
            found = closed & {port["port"] for port in rule["ports"]}
            if found and (rule.get("from") != PROXY or found & inner_ports(objects)):
                yield f"NetworkPolicy: lets somebody in to {', '.join(found)}"


def tls_files_are_a_secret(objects: Objects, _: Deployment) -> Iterator[str]:
    if not is_production(objects):
        return
    words = container_of(objects, "Deployment")["args"]
    given = dict(word.partition("=")[::2] for word in words if "=" in word)
    for option in FILES:
        if problem := problem_of_secret(pod_of(objects, "Deployment"), given.get(option, "/missing/file")):
            yield f"{option}: {problem}"


def problem_of_secret(pod: Object, file: str) -> str | None:
    """Why `file` of the pod's container is not in a Secret that is named by reference, mounted read-only, and
    readable by the pod's group only; None where it is.
    """
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    folder = str(PurePosixPath(file).parent)
    mount = mounts.get(folder, {})
    secret: dict[str, Any] = volumes.get(mount.get("name"), {}).get("secret", {})
    if not secret.get("secretName") or mount.get("readOnly") is not True:
        return f"{folder} is no Secret that is mounted read-only"
    if secret.get("defaultMode", 0o644) & 0o007:
        return "every user of the pod may read it; defaultMode: 0440"
    if pod["securityContext"].get("fsGroup") != pod["securityContext"].get("runAsGroup"):
        return "the pod may not read it: fsGroup is not its group"
    return None
