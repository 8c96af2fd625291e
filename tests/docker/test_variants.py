"""Overlays with Envoy in front, and those for KServe: valid objects, and policies that notice a violation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .cluster import container_of, deployment_of, kinds, of_kind, one, pod_of, rendered
from .policies import POLICIES
from .proxy_policies import PROXY_POLICIES, of_the_proxy, without_the_proxy
from .test_kubernetes import problem_of
from .tools import ROOT

pytestmark = pytest.mark.ship

VARIANTS = ROOT / "docker/kubernetes/variants"
NAMES = sorted(path.name for path in VARIANTS.iterdir())
OF_PODS = (
    "pods_have_one_container",
    "images_are_pinned",
    "nobody_is_root",
    "containers_have_no_rights",
    "no_token_is_mounted",
    "resources_are_bounded",
    "secrets_are_references",
)
"""Policies of policies.py that hold for any pod."""
Objects = list[dict[str, Any]]


@pytest.fixture(scope="module")
def variants() -> dict[str, Objects]:
    return {name: rendered(VARIANTS / name) for name in NAMES}


@pytest.fixture
def proxied(variants: dict[str, Objects]) -> Objects:
    return copy.deepcopy(variants["l4-proxy"])


@pytest.fixture
def served(variants: dict[str, Objects]) -> Objects:
    return copy.deepcopy(variants["l4-kserve"])


def pod_of_service(service: dict[str, Any]) -> dict[str, Any]:
    """The part of an InferenceService that is a pod's specification, as a Pod."""
    own = ("labels", "deploymentStrategy")
    predictor = {name: value for name, value in service["spec"]["predictor"].items() if name not in own}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": predictor}


@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_valid(variants: dict[str, Objects], name: str) -> None:
    """Of an InferenceService also the pod, which its schema leaves to Kubernetes."""
    objects = [*variants[name], *map(pod_of_service, of_kind(variants[name], "InferenceService"))]
    problems = {f"{found['kind']} {found['metadata']['name']}": problem_of(found) for found in objects}
    assert {what: problem for what, problem in problems.items() if problem} == {}


@pytest.mark.parametrize("place", ["predictr", "predictor.minReplica", "predictor.deploymentStrategy.typ"])
def test_a_misspelt_field_of_kserve_is_found(served: Objects, place: str) -> None:
    (found,) = of_kind(served, "InferenceService")
    *path, name = place.split(".")
    inside: Any = found["spec"]
    for step in path:
        inside = inside[step]
    inside[name] = "x"
    assert name in str(problem_of(dict(found)))


def test_a_misspelt_field_of_its_pod_is_found(served: Objects) -> None:
    (found,) = of_kind(served, "InferenceService")
    found["spec"]["predictor"]["tolerationz"] = []
    assert "tolerationz" in f"{problem_of(dict(found))} {problem_of(pod_of_service(dict(found)))}"


@pytest.mark.parametrize("policy", POLICIES)
def test_servers_behind_the_proxy_keep_every_policy(proxied: Objects, tmp_path: Path, policy: str) -> None:
    servers = without_the_proxy(proxied)
    assert list(POLICIES[policy](servers, deployment_of(servers, tmp_path))) == []


@pytest.mark.parametrize("policy", [*OF_PODS, *PROXY_POLICIES])
def test_the_proxy_keeps_every_policy(proxied: Objects, tmp_path: Path, policy: str) -> None:
    found = (POLICIES | PROXY_POLICIES)[policy](of_the_proxy(proxied), deployment_of(proxied, tmp_path))
    assert list(found) == []


def as_deployment(objects: Objects) -> Objects:
    """The objects with the Deployment that KServe makes of its InferenceService."""
    (service,) = of_kind(objects, "InferenceService")
    predictor = copy.deepcopy(service["spec"]["predictor"])
    labels, strategy = predictor.pop("labels"), predictor.pop("deploymentStrategy")
    template = {"metadata": {"labels": labels}, "spec": predictor}
    selector = {"matchLabels": {"app.kubernetes.io/component": labels["app.kubernetes.io/component"]}}
    made = {
        "kind": "Deployment",
        "metadata": {"name": f"{service['metadata']['name']}-predictor"},
        "spec": {"strategy": strategy, "selector": selector, "template": template},
    }
    return [*(found for found in objects if found is not service), made]


@pytest.mark.parametrize("policy", POLICIES)
def test_what_kserve_makes_keeps_every_policy(served: Objects, tmp_path: Path, policy: str) -> None:
    objects = as_deployment(served)
    assert list(POLICIES[policy](objects, deployment_of(objects, tmp_path))) == []


def test_kserve_gets_the_whole_pod_of_the_overlay(served: Objects, overlays: dict[str, Objects]) -> None:
    """But for the container's name, which KServe prescribes. Nothing else serves beside it."""
    (service,) = of_kind(served, "InferenceService")
    predictor = service["spec"]["predictor"]
    assert predictor["labels"]["app.kubernetes.io/component"] == "server"
    pod = copy.deepcopy(pod_of(overlays["l4"], "Deployment"))
    assert predictor["containers"][0]["name"] == "kserve-container"
    pod["containers"][0]["name"] = "kserve-container"
    own = ("labels", "deploymentStrategy")
    assert {name: value for name, value in predictor.items() if name not in own} == pod
    assert "Deployment" not in kinds(served)
    assert [found["metadata"]["name"] for found in of_kind(served, "Service")] == ["intaglio-servers"]


def test_port_80_of_kserves_service_is_grpc(served: Objects) -> None:
    """KServe leads it to the first port of the container; HTTP is open to nobody."""
    (service,) = of_kind(served, "InferenceService")
    first, *others = service["spec"]["predictor"]["containers"][0]["ports"]
    assert first == {"name": "grpc", "containerPort": 8001}
    assert [port["name"] for port in others] == ["metrics"]


def envoy(objects: Objects) -> Any:
    return container_of(of_the_proxy(objects), "Deployment")


def spec_of(objects: Objects, kind: str) -> Any:
    return one(of_the_proxy(objects), kind)["spec"]


def change(objects: Objects, old: str, new: str) -> None:
    """Change Envoy's configuration."""
    (data,) = [found["data"] for found in of_kind(objects, "ConfigMap") if "envoy.yaml" in found["data"]]
    assert old in data["envoy.yaml"]
    data["envoy.yaml"] = data["envoy.yaml"].replace(old, new)


VIOLATIONS: list[tuple[str, Callable[[Objects], object]]] = [
    (
        "ports_are_those_of_servers_and_service",
        lambda all_: change(all_, "port_value: 8000", "port_value: 80"),
    ),
    ("ports_are_those_of_servers_and_service", lambda all_: envoy(all_)["ports"].pop()),
    ("ports_are_those_of_servers_and_service", lambda all_: change(all_, "127.0.0.1", "0.0.0.0")),
    (
        "ports_are_those_of_servers_and_service",
        lambda all_: spec_of(all_, "Service")["ports"][0].update(targetPort="metrics"),
    ),
    (
        "every_allowed_request_passes",
        lambda all_: change(all_, "max_request_bytes: 2", "max_request_bytes: 1"),
    ),
    (
        "every_allowed_request_passes",
        lambda all_: change(all_, "max_request_bytes: 2", "max_request_bytes: 3"),
    ),
    ("every_allowed_request_passes", lambda all_: change(all_, "buffer_limit: 2", "buffer_limit: 1")),
    ("memory_is_bounded", lambda all_: envoy(all_)["resources"]["limits"].update(memory="1Gi")),
    ("a_stop_waits_for_clients", lambda all_: envoy(all_).pop("lifecycle")),
    (
        "a_stop_waits_for_clients",
        lambda all_: change(all_, "max_connection_duration: 120s", "idle_timeout: 1s"),
    ),
    ("a_stop_waits_for_clients", lambda all_: change(all_, "duration: 120s", "duration: 600s")),
    (
        "a_stop_waits_for_clients",
        lambda all_: pod_of(of_the_proxy(all_), "Deployment").update(terminationGracePeriodSeconds=60),
    ),
    ("probes_ask_envoy", lambda all_: envoy(all_).pop("readinessProbe")),
    ("rollouts_and_drains_leave_one", lambda all_: spec_of(all_, "Deployment").update(replicas=1)),
    (
        "rollouts_and_drains_leave_one",
        lambda all_: spec_of(all_, "PodDisruptionBudget").update(maxUnavailable=2),
    ),
    ("selectors_find_it", lambda all_: spec_of(all_, "Service").update(selector={"app": "envoy"})),
    (
        "selectors_find_it",
        lambda all_: spec_of(all_, "Deployment")["template"]["metadata"]["labels"].pop("intaglio-client"),
    ),
    ("it_reaches_servers_and_names_only", lambda all_: spec_of(all_, "NetworkPolicy")["egress"].append({})),
    (
        "it_reaches_servers_and_names_only",
        lambda all_: spec_of(all_, "NetworkPolicy")["ingress"][0].pop("from"),
    ),
    ("its_config_is_mounted", lambda all_: envoy(all_)["args"].remove("/etc/envoy/envoy.yaml")),
    ("images_are_pinned", lambda all_: envoy(all_).update(image="docker.io/envoyproxy/envoy:latest")),
    (
        "nobody_is_root",
        lambda all_: pod_of(of_the_proxy(all_), "Deployment")["securityContext"].pop("runAsUser"),
    ),
    ("resources_are_bounded", lambda all_: envoy(all_)["resources"].pop("limits")),
]


@pytest.mark.parametrize(("policy", "plant"), VIOLATIONS)
def test_a_planted_violation_is_found(
    proxied: Objects, tmp_path: Path, policy: str, plant: Callable[[Objects], object]
) -> None:
    before = yaml.safe_dump(proxied)
    plant(proxied)
    assert yaml.safe_dump(proxied) != before
    policies = POLICIES | PROXY_POLICIES
    assert list(policies[policy](of_the_proxy(proxied), deployment_of(proxied, tmp_path))) != []


def test_every_policy_of_the_proxy_has_a_planted_violation() -> None:
    assert set(PROXY_POLICIES) <= {policy for policy, _ in VIOLATIONS}
