"""Policies for servers that other machines reach: only gRPC is open, and it asks for certificates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from intaglio.contract.config import Deployment

from .cluster import Object, container_of, of_kind, pod_of

__all__ = ["closed_ports", "is_production", "servers_of_cards_are_closed", "tls_files_are_a_secret"]

Objects = Sequence[Object]
FILES: Final = ("--tls-cert", "--tls-key", "--tls-ca")


def is_production(objects: Objects) -> bool:
    """Whether the servers are started with `--production`."""
    return "--production" in container_of(objects, "Deployment")["args"]


def closed_ports(objects: Objects) -> set[str]:
    """Ports that nobody but the pod itself reaches."""
    return {"http"} if is_production(objects) else set()


def servers_of_cards_are_closed(objects: Objects, deployment: Deployment) -> Iterator[str]:
    """The demo on the CPU has a Triton that `--production` refuses."""
    if deployment.target != "cpu" and not is_production(objects):
        yield "args: a server for other machines needs --production"
    closed = closed_ports(objects)
    container = container_of(objects, "Deployment")
    if found := closed & {port["name"] for port in container["ports"]}:
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
            if found := closed & {port["port"] for port in rule["ports"]}:
                yield f"NetworkPolicy: lets somebody in to {', '.join(found)}"


def tls_files_are_a_secret(objects: Objects, _: Deployment) -> Iterator[str]:
    """Named by reference, read-only, and readable by the server's group only."""
    if not is_production(objects):
        return
    container, pod = container_of(objects, "Deployment"), pod_of(objects, "Deployment")
    given = dict(word.partition("=")[::2] for word in container["args"] if "=" in word)
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for option in FILES:
        folder = str(PurePosixPath(given.get(option, "/missing/file")).parent)
        mount = mounts.get(folder, {})
        secret: dict[str, Any] = volumes.get(mount.get("name"), {}).get("secret", {})
        if not secret.get("secretName") or mount.get("readOnly") is not True:
            yield f"{option}: {folder} is no Secret that is mounted read-only"
        elif secret.get("defaultMode", 0o644) & 0o007:
            yield f"{option}: every user of the pod may read it; defaultMode: 0440"
