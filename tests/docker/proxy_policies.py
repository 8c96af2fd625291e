"""Policies for Envoy in the cluster, beside those that hold for every pod (policies.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from intaglio.contract.config import Deployment

from .cluster import Object, container_of, of_kind, one, pod_of
from .envoy import cluster_of, http_of

__all__ = ["COMPONENT", "PROXY_POLICIES", "config_of", "of_the_proxy", "without_the_proxy"]

Objects = Sequence[Object]
COMPONENT: Final = "app.kubernetes.io/component"
LARGEST_OVERHEAD: Final = 1 << 20
"""Bytes of a request beside its pictures and prompts; far more than it needs."""
HEAP_SHARE: Final = 0.8
_UNITS: Final = {"Mi": 1 << 20, "Gi": 1 << 30}


def is_of_the_proxy(found: Object) -> bool:
    """Whether an object belongs to the proxy; its configuration has the suffix of its content."""
    labels = found["metadata"].get("labels", {})
    name = found["metadata"]["name"]
    return labels.get(COMPONENT) == "proxy" or (
        found["kind"] == "ConfigMap" and name.startswith("intaglio-proxy")
    )


def of_the_proxy(objects: Objects) -> list[Object]:
    """Those of the proxy, and what every pod has to do with: job, account, namespace."""
    shared = ("Job", "ServiceAccount", "Namespace")
    return [found for found in objects if is_of_the_proxy(found) or found["kind"] in shared]


def without_the_proxy(objects: Objects) -> list[Object]:
    return [found for found in objects if not is_of_the_proxy(found)]


def config_of(objects: Objects) -> dict[str, Any]:
    """Envoy's configuration in the cluster."""
    (text,) = [found["data"]["envoy.yaml"] for found in of_kind(objects, "ConfigMap") if "data" in found]
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def largest_request(deployment: Deployment) -> int:
    """Bytes that the limits of a deployment let a request have."""
    limits = deployment.limits
    return limits.input_images * limits.input_bytes + 2 * limits.prompt_bytes


def ports_are_those_of_servers_and_service(objects: Objects, deployment: Deployment) -> Iterator[str]:
    config = config_of(objects)
    (end,) = cluster_of(config)["load_assignment"]["endpoints"][0]["lb_endpoints"]
    asked = end["endpoint"]["address"]["socket_address"]["port_value"]
    checked = end["endpoint"]["health_check_config"]["port_value"]
    if (asked, checked) != (deployment.server.grpc_port, deployment.server.http_port):
        yield f"it asks ports {asked} and {checked}, which are none of the server's"
    listens = {
        listener["name"]: listener["address"]["socket_address"]["port_value"]
        for listener in config["static_resources"]["listeners"]
    }
    ports = {port["name"]: port["containerPort"] for port in container_of(objects, "Deployment")["ports"]}
    if listens != ports:
        yield f"it listens on {listens}; its container has {ports}"
    (port,) = one(objects, "Service")["spec"]["ports"]
    if (port["port"], port["targetPort"]) != (deployment.server.grpc_port, "grpc"):
        yield f"the Service has port {port['port']}"
    if config["admin"]["address"]["socket_address"]["address"] != "127.0.0.1":
        yield "others can reach the admin interface"


def every_allowed_request_passes(objects: Objects, deployment: Deployment) -> Iterator[str]:
    http = http_of(config_of(objects))
    most = http["http_filters"][0]["typed_config"]["max_request_bytes"]
    largest = largest_request(deployment)
    if not largest < most <= largest + 4 * LARGEST_OVERHEAD:
        yield f"max_request_bytes {most}: a request may have {largest}"
    route = http["route_config"]["virtual_hosts"][0]["routes"][0]
    if route["request_body_buffer_limit"] < most:
        yield "a large request cannot be sent again"


def memory_is_bounded(objects: Objects, _: Deployment) -> Iterator[str]:
    limit = container_of(objects, "Deployment")["resources"]["limits"]["memory"]
    bytes_ = int(limit[:-2]) * _UNITS[limit[-2:]]
    (heap, _connections) = config_of(objects)["overload_manager"]["resource_monitors"]
    if heap["typed_config"]["max_heap_size_bytes"] != int(HEAP_SHARE * bytes_):
        yield f"max_heap_size_bytes: {HEAP_SHARE:.0%} of {limit} are {int(HEAP_SHARE * bytes_)}"


def a_stop_waits_for_clients(objects: Objects, deployment: Deployment) -> Iterator[str]:
    common = http_of(config_of(objects))["common_http_protocol_options"]
    leaves = int(common.get("max_connection_duration", "0s")[:-1])
    pause = container_of(objects, "Deployment").get("lifecycle", {}).get("preStop", {}).get("sleep", {})
    needed = leaves + deployment.server.drain_seconds
    if not leaves:
        yield "max_connection_duration: clients would stay until Envoy ends"
    if pause.get("seconds", 0) <= needed:
        yield f"preStop: clients and their pictures need {needed} s"
    if pod_of(objects, "Deployment").get("terminationGracePeriodSeconds", 30) <= pause.get("seconds", 0):
        yield "terminationGracePeriodSeconds: shorter than preStop"


def probes_ask_envoy(objects: Objects, _: Deployment) -> Iterator[str]:
    container = container_of(objects, "Deployment")
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if container.get(name, {}).get("httpGet") != {"path": "/ready", "port": "metrics"}:
            yield f"{name}: must ask /ready of port metrics"


def rollouts_and_drains_leave_one(objects: Objects, _: Deployment) -> Iterator[str]:
    spec = one(objects, "Deployment")["spec"]
    if spec.get("replicas", 1) < 2 or spec["strategy"]["rollingUpdate"].get("maxUnavailable") != 0:
        yield "one that ends would leave clients without an address"
    budget = one(objects, "PodDisruptionBudget")["spec"]
    if budget.get("maxUnavailable") != 1:
        yield "PodDisruptionBudget: one at a time"


def selectors_find_it(objects: Objects, _: Deployment) -> Iterator[str]:
    deployment = one(objects, "Deployment")
    wanted = {COMPONENT: "proxy"}
    for name, found in {
        "Deployment": deployment["spec"]["selector"]["matchLabels"],
        "Service": one(objects, "Service")["spec"]["selector"],
        "PodDisruptionBudget": one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        "NetworkPolicy": one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        "PodMonitor": one(objects, "PodMonitor")["spec"]["selector"]["matchLabels"],
    }.items():
        if found != wanted:
            yield f"{name}: selects {found}"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    if labels.get(COMPONENT) != "proxy" or labels.get("intaglio-client") != "true":
        yield "its pods lack the labels of a proxy, or of a client of the servers"


def it_reaches_servers_and_names_only(objects: Objects, _: Deployment) -> Iterator[str]:
    spec = one(objects, "NetworkPolicy")["spec"]
    servers = {"podSelector": {"matchLabels": {COMPONENT: "server"}}}
    names = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    out = [(rule.get("to"), [port["port"] for port in rule.get("ports", ())]) for rule in spec["egress"]]
    if out != [([servers], ["http", "grpc"]), ([names], [53, 53])]:
        yield f"it may reach {out}"
    ports = [[port["port"] for port in rule.get("ports", ())] for rule in spec["ingress"]]
    if ports != [["grpc"], ["metrics"]] or any(not rule.get("from") for rule in spec["ingress"]):
        yield "others than clients and Prometheus reach it"


def its_config_is_mounted(objects: Objects, _: Deployment) -> Iterator[str]:
    (volume,) = [found for found in pod_of(objects, "Deployment")["volumes"] if "configMap" in found]
    mounts = container_of(objects, "Deployment")["volumeMounts"]
    (mount,) = [found for found in mounts if found["name"] == volume["name"]]
    (config,) = of_kind(objects, "ConfigMap")
    if volume["configMap"]["name"] != config["metadata"]["name"]:
        yield f"there is no ConfigMap {volume['configMap']['name']}"
    if f"{mount['mountPath']}/envoy.yaml" not in container_of(objects, "Deployment")["args"]:
        yield "Envoy reads another file"


PROXY_POLICIES: Final[Mapping[str, Callable[[Objects, Deployment], Iterator[str]]]] = {
    policy.__name__: policy
    for policy in (
        ports_are_those_of_servers_and_service,
        every_allowed_request_passes,
        memory_is_bounded,
        a_stop_waits_for_clients,
        probes_ask_envoy,
        rollouts_and_drains_leave_one,
        selectors_find_it,
        it_reaches_servers_and_names_only,
        its_config_is_mounted,
    )
}
