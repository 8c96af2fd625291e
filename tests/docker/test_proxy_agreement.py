"""Envoy and the servers behind it: both speak TLS, or neither does; a variant that mixes them is found."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .cluster import container_of, deployment_of, of_kind, one, pod_of, rendered
from .policies import POLICIES
from .proxy_agreement import AGREEMENTS, is_plain
from .proxy_policies import of_the_proxy, without_the_proxy
from .tools import ROOT

pytestmark = pytest.mark.ship

Objects = list[dict[str, Any]]


@pytest.fixture(scope="module")
def variant() -> Objects:
    return rendered(ROOT / "docker/kubernetes/variants/l4-proxy")


def with_components(folder: Path, overlay: str, *components: str) -> Objects:
    """The objects of an overlay with components."""
    place = shutil.copytree(ROOT / "docker/kubernetes", folder / "kubernetes") / "variants/mixed"
    place.mkdir()
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"../../overlays/{overlay}"],
        "components": [f"../../components/{name}" for name in components],
    }
    (place / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return rendered(place)


def problems_of(objects: Objects) -> list[str]:
    return [problem for policy in AGREEMENTS.values() for problem in policy(objects)]


def test_every_variant_with_envoy_keeps_every_policy() -> None:
    found = [rendered(folder) for folder in sorted((ROOT / "docker/kubernetes/variants").iterdir())]
    proxied = [objects for objects in found if of_kind(of_the_proxy(objects), "Deployment")]
    assert proxied
    assert [problems_of(objects) for objects in proxied] == [[]] * len(proxied)


def test_before_servers_in_production_envoy_has_tls_at_both_ends(variant: Objects) -> None:
    assert not is_plain(variant)
    names = [found["metadata"]["name"] for found in of_kind(variant, "ConfigMap")]
    assert not any("tls" in name for name in names), "what the component reads stays there"


def test_before_the_other_servers_it_speaks_plain_text(tmp_path: Path) -> None:
    objects = with_components(tmp_path, "cpu-demo", "proxy")
    assert problems_of(objects) == []
    assert is_plain(objects)


@pytest.mark.parametrize(
    ("overlay", "components", "problem"),
    [
        ("l4", ["proxy"], "the servers want TLS: add components/proxy-tls"),
        ("cpu-demo", ["proxy", "proxy-tls"], "the servers want plain text: take no proxy-tls"),
    ],
)
def test_a_variant_that_mixes_them_is_found(
    tmp_path: Path, overlay: str, components: list[str], problem: str
) -> None:
    objects = with_components(tmp_path, overlay, *components)
    found = list(AGREEMENTS["envoy_and_servers_speak_alike"](objects))
    assert found[:2] == [f"Envoy and {who}: {problem}" for who in ("clients", "servers")]


def change(objects: Objects, old: str, new: str) -> None:
    """Change Envoy's configuration."""
    (data,) = [found["data"] for found in of_kind(objects, "ConfigMap") if "envoy.yaml" in found["data"]]
    assert old in data["envoy.yaml"]
    data["envoy.yaml"] = data["envoy.yaml"].replace(old, new)


def server(objects: Objects) -> Any:
    return container_of(without_the_proxy(objects), "Deployment")


def envoys_pod(objects: Objects) -> Any:
    return pod_of(of_the_proxy(objects), "Deployment")


def rules(objects: Objects) -> Any:
    """Who is let in to the servers."""
    return of_kind(without_the_proxy(objects), "NetworkPolicy")[1]["spec"]["ingress"]


VIOLATIONS: list[tuple[str, Callable[[Objects], object]]] = [
    ("envoy_and_servers_speak_alike", lambda all_: server(all_)["args"].remove("--production")),
    ("envoy_and_servers_speak_alike", lambda all_: change(all_, "UpstreamTls", "DownstreamTls")),
    (
        "envoy_and_servers_speak_alike",
        lambda all_: one(of_the_proxy(all_), "Service")["spec"]["ports"][0].update(
            appProtocol="kubernetes.io/h2c"
        ),
    ),
    (
        "both_ends_check_certificates",
        lambda all_: change(all_, "require_client_certificate: true", "require_client_certificate: false"),
    ),
    ("both_ends_check_certificates", lambda all_: change(all_, "exact: intaglio-servers", "exact: intaglio")),
    ("both_ends_check_certificates", lambda all_: change(all_, "/srv/client-tls/ca.crt", "/etc/ca.crt")),
    ("both_ends_check_certificates", lambda all_: envoys_pod(all_)["securityContext"].pop("fsGroup")),
    (
        "both_ends_check_certificates",
        lambda all_: envoys_pod(all_)["volumes"][-1]["secret"].update(defaultMode=0o444),
    ),
    (
        "envoy_alone_asks_for_the_health",
        lambda all_: change(all_, "match_criteria: {plain_text", "match_criteria: {plain"),
    ),
    ("envoy_alone_asks_for_the_health", lambda all_: server(all_)["args"].remove("--http-host=0.0.0.0")),
    ("envoy_alone_asks_for_the_health", lambda all_: rules(all_).pop()),
]


@pytest.mark.parametrize(("policy", "plant"), VIOLATIONS)
def test_a_planted_violation_is_found(
    variant: Objects, policy: str, plant: Callable[[Objects], object]
) -> None:
    objects = copy.deepcopy(variant)
    plant(objects)
    assert list(AGREEMENTS[policy](objects)) != []


def test_every_policy_has_a_planted_violation() -> None:
    assert {policy for policy, _ in VIOLATIONS} == set(AGREEMENTS)


@pytest.mark.parametrize("caller", [{"intaglio-client": "true"}, {}])
def test_http_is_for_envoy_only(variant: Objects, tmp_path: Path, caller: dict[str, str]) -> None:
    objects = without_the_proxy(copy.deepcopy(variant))
    rules(objects)[-1]["from"].append({"podSelector": {"matchLabels": caller}})
    found = POLICIES["servers_of_cards_are_closed"](objects, deployment_of(objects, tmp_path))
    assert list(found) == ["NetworkPolicy: lets somebody in to http"]
