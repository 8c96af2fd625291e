"""Policies for Envoy and the servers behind it together: both speak TLS, or neither does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from .cluster import Object, container_of, of_kind, one, pod_of, selects
from .envoy import cluster_of
from .production import HTTP_FOR_HEALTH, is_production, problem_of_secret
from .proxy_policies import COMPONENT, config_of, of_the_proxy, without_the_proxy

__all__ = ["AGREEMENTS", "is_plain"]

Objects = Sequence[Object]
_TYPES: Final = "type.googleapis.com/envoy.extensions.transport_sockets"
DOWNSTREAM: Final = f"{_TYPES}.tls.v3.DownstreamTlsContext"
UPSTREAM: Final = f"{_TYPES}.tls.v3.UpstreamTlsContext"
PLAIN: Final = f"{_TYPES}.raw_buffer.v3.RawBuffer"
FILES: Final = ("certificate_chain", "private_key")


def ends(objects: Objects) -> tuple[dict[str, Any], dict[str, Any]]:
    """What Envoy's configuration says of TLS to clients and to servers; empty where it is plain text."""
    config = config_of(of_the_proxy(objects))
    (listener,) = [one for one in config["static_resources"]["listeners"] if one["name"] == "grpc"]
    (chain,) = listener["filter_chains"]
    sockets = (chain.get("transport_socket", {}), cluster_of(config).get("transport_socket", {}))
    return sockets[0].get("typed_config", {}), sockets[1].get("typed_config", {})


def is_plain(objects: Objects) -> bool:
    """Whether Envoy speaks plain text at both ends."""
    return ends(objects) == ({}, {})


def envoy_and_servers_speak_alike(objects: Objects) -> Iterator[str]:
    production = is_production(without_the_proxy(objects))
    for who, kind, found in zip(("clients", "servers"), (DOWNSTREAM, UPSTREAM), ends(objects), strict=True):
        if found.get("@type") != (kind if production else None):
            right = "TLS: add components/proxy-tls" if production else "plain text: take no proxy-tls"
            yield f"Envoy and {who}: the servers want {right}"
    (port,) = one(of_the_proxy(objects), "Service")["spec"]["ports"]
    if ("appProtocol" in port) == production:
        yield "Service: h2c is plain text, and for nothing else"


def both_ends_check_certificates(objects: Objects) -> Iterator[str]:
    if is_plain(objects):
        return
    clients, servers = ends(objects)
    if clients.get("require_client_certificate") is not True:
        yield "clients: need no certificate"
    pod = pod_of(of_the_proxy(objects), "Deployment")
    for who, found in {"clients": clients, "servers": servers}.items():
        common = found.get("common_tls_context", {})
        checks = common.get("validation_context", {})
        own = (common.get("tls_certificates") or [{}])[0]
        files = [own.get(name, {}).get("filename", "/missing/file") for name in FILES]
        for file in (*files, checks.get("trusted_ca", {}).get("filename", "/missing/file")):
            if problem := problem_of_secret(pod, file):
                yield f"{who}: {file}: {problem}"
        if common.get("alpn_protocols") != ["h2"]:
            yield f"{who}: gRPC is h2"
    (end,) = cluster_of(config_of(of_the_proxy(objects)))["load_assignment"]["endpoints"][0]["lb_endpoints"]
    name = end["endpoint"]["address"]["socket_address"]["address"]
    checks = servers.get("common_tls_context", {}).get("validation_context", {})
    if checks.get("match_typed_subject_alt_names") != [{"san_type": "DNS", "matcher": {"exact": name}}]:
        yield f"servers: whoever the authority signed passes for {name}"


def envoy_alone_asks_for_the_health(objects: Objects) -> Iterator[str]:
    """Over HTTP in plain text, whatever gRPC has."""
    servers = without_the_proxy(objects)
    cluster = cluster_of(config_of(of_the_proxy(objects)))
    (check,) = cluster["health_checks"]
    wanted = check.get("transport_socket_match_criteria")
    matches = [
        found["transport_socket"].get("typed_config", {}).get("@type")
        for found in cluster.get("transport_socket_matches", ())
        if found["match"] == wanted
    ]
    if not is_plain(objects) and (not wanted or matches != [PLAIN]):
        yield "the health check speaks TLS, and HTTP of a server never does"
    container = container_of(servers, "Deployment")
    if is_production(servers) and HTTP_FOR_HEALTH not in container["args"]:
        yield f"servers: HTTP is on their loopback; Envoy's health check needs {HTTP_FOR_HEALTH}"
    labels = one(servers, "Deployment")["spec"]["template"]["metadata"]["labels"]
    rules = [
        rule
        for policy in of_kind(servers, "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get("ingress", ())
        if "http" in {port["port"] for port in rule["ports"]}
    ]
    own = one(of_the_proxy(objects), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert own[COMPONENT] == "proxy"
    peers = [peer for rule in rules for peer in rule["from"] if "namespaceSelector" not in peer]
    if not any(selects(peer["podSelector"], own) for peer in peers):
        yield "NetworkPolicy: Envoy does not reach http of the servers"


AGREEMENTS: Final[Mapping[str, Callable[[Objects], Iterator[str]]]] = {
    policy.__name__: policy
    for policy in (
        envoy_and_servers_speak_alike,
        both_ends_check_certificates,
        envoy_alone_asks_for_the_health,
    )
}
