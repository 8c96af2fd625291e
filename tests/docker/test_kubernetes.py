"""The overlays: every object against the schema of its kind, and every policy, which notices a violation."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .cluster import container_of, deployment_of, kinds, of_kind, one, pod_of, rendered
from .policies import POLICIES
from .tools import ROOT

pytestmark = pytest.mark.ship

SCHEMAS = ROOT / "docker/schemas"
NAMES = sorted(path.name for path in (ROOT / "docker/kubernetes/overlays").iterdir())
KUBERNETES = "1.37"
Objects = list[dict[str, Any]]


def problem_of(found: dict[str, Any]) -> str | None:
    """What the schema of its kind says against an object. Fields that it does not have are problems too."""
    import jsonschema  # noqa: PLC0415  (of the extra `ship`)
    import kubernetes_validate  # noqa: PLC0415

    group, _, version = found["apiVersion"].rpartition("/")
    custom = SCHEMAS / f"{group}_{version}_{found['kind']}.json"
    try:
        if custom.is_file():
            jsonschema.validate(found, strict(json.loads(custom.read_text())))
        else:
            kubernetes_validate.validate(found, KUBERNETES, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return str(error.message)
    return None


def strict(schema: Any) -> Any:
    """`schema` without fields that it does not name; a custom resource's schema lets them pass."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(value) for name, value in schema.items()}
    if isinstance(pattern := schema.get("pattern"), str) and "(?i)" in pattern:
        closed["pattern"] = f"(?i){pattern.replace('(?i)', '')}"  # Go allows flags anywhere, Python in front
    if schema.get("properties", {}) and schema.get("type") == "object":
        if "metadata" in schema["properties"] and "kind" in schema["properties"]:
            closed["properties"]["metadata"] = {"type": "object"}
        closed.setdefault("additionalProperties", False)
    return closed


@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_valid(overlays: dict[str, Objects], name: str) -> None:
    problems = {f"{found['kind']} {found['metadata']['name']}": problem_of(found) for found in overlays[name]}
    assert {what: problem for what, problem in problems.items() if problem} == {}


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("Deployment", ("spec", "template", "spec", "containers", 0, "livenesProbe")),
        ("Job", ("spec", "backofLimit")),
        ("NetworkPolicy", ("spec", "egres")),
        ("ScaledObject", ("spec", "minReplicas")),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "portt")),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "expression")),
    ],
)
def test_a_misspelt_field_is_found(overlays: dict[str, Objects], kind: str, place: tuple[Any, ...]) -> None:
    found = copy.deepcopy(of_kind(overlays["l4"], kind)[0])
    assert problem_of(dict(found)) is None
    inside: Any = found
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = "x"
    assert place[-1] in str(problem_of(dict(found)))


def test_compose_is_valid_and_a_misspelt_key_is_found() -> None:
    import jsonschema  # noqa: PLC0415

    schema = json.loads((SCHEMAS / "compose-spec.json").read_text())
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    validator = jsonschema.Draft7Validator(schema)
    assert [error.message for error in validator.iter_errors(compose)] == []
    compose["services"]["server"]["restrat"] = "no"
    (error,) = validator.iter_errors(compose)
    assert "restrat" in error.message


@pytest.mark.parametrize("name", NAMES)
def test_every_overlay_has_every_part(overlays: dict[str, Objects], name: str) -> None:
    parts = "ConfigMap Deployment Job Namespace NetworkPolicy PersistentVolumeClaim PodDisruptionBudget "
    parts += "PodMonitor PrometheusRule ScaledObject Service ServiceAccount"
    assert kinds(overlays[name]) == set(parts.split())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", NAMES)
def test_every_policy_is_kept(overlays: dict[str, Objects], tmp_path: Path, name: str, policy: str) -> None:
    deployment = deployment_of(overlays[name], tmp_path)
    assert list(POLICIES[policy](overlays[name], deployment)) == []


def server(objects: Objects) -> Any:
    return container_of(objects, "Deployment")


def peers(objects: Objects) -> Any:
    """Whom the second network policy lets send requests."""
    return of_kind(objects, "NetworkPolicy")[1]["spec"]["ingress"][0]["from"]


VIOLATIONS: list[tuple[str, Callable[[Objects], object]]] = [
    ("images_are_pinned", lambda all_: server(all_).update(image="registry.example.com/intaglio:latest")),
    ("images_are_pinned", lambda all_: container_of(all_, "Job").update(image="localhost:5000/intaglio")),
    ("nobody_is_root", lambda all_: server(all_)["securityContext"].update(runAsUser=0)),
    ("nobody_is_root", lambda all_: pod_of(all_, "Job")["securityContext"].pop("runAsNonRoot")),
    (
        "containers_have_no_rights",
        lambda all_: server(all_)["securityContext"].update(capabilities={"add": ["NET_ADMIN"]}),
    ),
    ("containers_have_no_rights", lambda all_: server(all_)["securityContext"].update(privileged=True)),
    ("containers_have_no_rights", lambda all_: server(all_)["securityContext"].pop("readOnlyRootFilesystem")),
    ("containers_have_no_rights", lambda all_: pod_of(all_, "Job")["securityContext"].pop("seccompProfile")),
    ("containers_have_no_rights", lambda all_: pod_of(all_, "Deployment").update(hostIPC=True)),
    (
        "containers_have_no_rights",
        lambda all_: pod_of(all_, "Deployment")["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
    ),
    ("no_token_is_mounted", lambda all_: pod_of(all_, "Job").pop("automountServiceAccountToken")),
    ("no_token_is_mounted", lambda all_: one(all_, "ServiceAccount").pop("automountServiceAccountToken")),
    (
        "no_token_is_mounted",
        lambda all_: pod_of(all_, "Job")["volumes"].append(
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
        ),
    ),
    (
        "pods_have_one_container",
        lambda all_: pod_of(all_, "Deployment").update(initContainers=[{"name": "x", "image": "x:latest"}]),
    ),
    (
        "pods_have_one_container",
        lambda all_: pod_of(all_, "Job")["containers"].append({"name": "x", "image": "x:latest"}),
    ),
    ("nobody_is_root", lambda all_: pod_of(all_, "Deployment")["securityContext"].update(runAsGroup=0)),
    ("nobody_is_root", lambda all_: pod_of(all_, "Job")["securityContext"].update(supplementalGroups=[0])),
    (
        "containers_have_no_rights",
        lambda all_: server(all_)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    ),
    ("containers_have_no_rights", lambda all_: server(all_)["ports"][1].update(hostPort=8001)),
    (
        "nodes_can_be_drained",
        lambda all_: one(all_, "PodDisruptionBudget")["spec"].update(maxUnavailable=0),
    ),
    (
        "nodes_can_be_drained",
        lambda all_: one(all_, "PodDisruptionBudget")["spec"].update(minAvailable="100%"),
    ),
    (
        "nodes_can_be_drained",
        lambda all_: one(all_, "PodDisruptionBudget")["spec"].pop("unhealthyPodEvictionPolicy"),
    ),
    ("servers_are_reached", lambda all_: of_kind(all_, "NetworkPolicy")[1]["spec"]["ingress"].pop()),
    ("servers_are_reached", lambda all_: peers(all_).pop(0)),
    ("servers_are_reached", lambda all_: peers(all_).pop(1)),
    (
        "servers_are_reached",
        lambda all_: of_kind(all_, "NetworkPolicy")[1]["spec"]["ingress"][0]["ports"].pop(),
    ),
    ("nothing_goes_out", lambda all_: peers(all_).append({"ipBlock": {"cidr": "0.0.0.0/0"}})),
    ("nothing_goes_out", lambda all_: peers(all_).append({"namespaceSelector": {}})),
    (
        "lost_metrics_stop_no_server",
        lambda all_: one(all_, "ScaledObject")["spec"]["triggers"][1]["metadata"].pop("ignoreNullValues"),
    ),
    ("lost_metrics_stop_no_server", lambda all_: one(all_, "ScaledObject")["spec"].pop("fallback")),
    ("resources_are_bounded", lambda all_: server(all_)["resources"]["limits"].pop("memory")),
    ("resources_are_bounded", lambda all_: container_of(all_, "Job").pop("resources")),
    ("probes_ask_the_right_thing", lambda all_: server(all_).pop("readinessProbe")),
    ("probes_ask_the_right_thing", lambda all_: server(all_)["livenessProbe"]["exec"]["command"].pop()),
    (
        "probes_ask_the_right_thing",
        lambda all_: server(all_).update(
            readinessProbe={"httpGet": {"path": "/v2/models/sdxl/versions/1/ready", "port": "http"}}
        ),
    ),
    (
        "probes_ask_the_right_thing",
        lambda all_: server(all_)["readinessProbe"]["exec"]["command"].append("127.0.0.1:8000"),
    ),
    ("probes_ask_the_right_thing", lambda all_: server(all_)["startupProbe"].update(failureThreshold=30)),
    (
        "a_stop_lets_requests_finish",
        lambda all_: pod_of(all_, "Deployment").pop("terminationGracePeriodSeconds"),
    ),
    ("a_stop_lets_requests_finish", lambda all_: server(all_).pop("lifecycle")),
    (
        "a_stop_lets_requests_finish",
        lambda all_: change_config(all_, "drain_seconds: 300", "drain_seconds: 60"),
    ),
    ("rollouts_keep_every_server", lambda all_: one(all_, "Deployment")["spec"].update(replicas=1)),
    (
        "rollouts_keep_every_server",
        lambda all_: one(all_, "Deployment")["spec"].update(strategy={"type": "Recreate"}),
    ),
    ("ports_are_those_of_the_deployment", lambda all_: server(all_)["ports"][0].update(containerPort=80)),
    (
        "ports_are_those_of_the_deployment",
        lambda all_: of_kind(all_, "Service")[0]["spec"]["ports"][0].update(targetPort="metrics"),
    ),
    ("ports_are_those_of_the_deployment", lambda all_: server(all_)["args"].remove("0.0.0.0")),
    ("ports_are_those_of_the_deployment", lambda all_: server(all_)["args"].append("--http-port=9000")),
    (
        "ports_are_those_of_the_deployment",
        lambda all_: change_config(all_, "queue_size: 8", "queue_size: 8, grpc_port: 9001"),
    ),
    (
        "ports_are_those_of_the_deployment",
        lambda all_: change_config(all_, "queue_size: 8", "queue_size: 8, metrics_port: 9002"),
    ),
    (
        "ports_are_those_of_the_deployment",
        lambda all_: one(all_, "PodMonitor")["spec"]["podMetricsEndpoints"][0].update(port="http"),
    ),
    (
        "selectors_find_the_servers",
        lambda all_: one(all_, "PodDisruptionBudget")["spec"].update(
            selector={"matchLabels": {"app": "other"}}
        ),
    ),
    (
        "selectors_find_the_servers",
        lambda all_: of_kind(all_, "Service")[1]["spec"].update(
            selector={"app.kubernetes.io/name": "intaglio"}
        ),
    ),
    (
        "selectors_find_the_servers",
        lambda all_: one(all_, "ScaledObject")["spec"]["scaleTargetRef"].update(name="intaglio"),
    ),
    ("shared_memory_is_large_enough", lambda all_: server(all_)["volumeMounts"].pop(3)),
    (
        "shared_memory_is_large_enough",
        lambda all_: [
            one["emptyDir"].pop("medium", 0) for one in pod_of(all_, "Job")["volumes"] if "emptyDir" in one
        ],
    ),
    ("servers_cannot_write_builds", lambda all_: server(all_)["volumeMounts"][1].pop("readOnly")),
    (
        "servers_cannot_write_builds",
        lambda all_: container_of(all_, "Job")["volumeMounts"][1].update(mountPath="/b"),
    ),
    (
        "servers_cannot_write_builds",
        lambda all_: pod_of(all_, "Job")["volumes"][1]["persistentVolumeClaim"].update(claimName="other"),
    ),
    (
        "builds_have_names_of_their_own",
        lambda all_: one(all_, "Job")["metadata"].update(name="intaglio-build"),
    ),
    ("builds_have_names_of_their_own", lambda all_: change_config(all_, "text_chunks: 1", "text_chunks: 2")),
    ("both_run_on_one_kind_of_card", lambda all_: pod_of(all_, "Deployment").pop("affinity")),
    ("both_run_on_one_kind_of_card", lambda all_: server(all_)["resources"]["limits"].pop("nvidia.com/gpu")),
    ("both_run_on_one_kind_of_card", lambda all_: change_config(all_, "memory_limit_gib: 22\n", "")),
    ("nothing_goes_out", lambda all_: all_.remove(of_kind(all_, "NetworkPolicy")[0])),
    ("nothing_goes_out", lambda all_: of_kind(all_, "NetworkPolicy")[0]["spec"].update(egress=[{}])),
    ("nothing_goes_out", lambda all_: of_kind(all_, "NetworkPolicy")[1]["spec"]["ingress"][0].pop("from")),
    ("secrets_are_references", lambda all_: server(all_).update(env=[{"name": "HF_TOKEN", "value": "x"}])),
    (
        "secrets_are_references",
        lambda all_: all_.append({"kind": "Secret", "metadata": {"name": "x"}, "data": {"x": "eA=="}}),
    ),
    ("servers_of_cards_are_closed", lambda all_: server(all_)["args"].remove("--production")),
    (
        "servers_of_cards_are_closed",
        lambda all_: server(all_)["ports"].append({"name": "http", "containerPort": 8000}),
    ),
    (
        "servers_of_cards_are_closed",
        lambda all_: of_kind(all_, "Service")[0]["spec"]["ports"].append(
            {"name": "http", "port": 8000, "targetPort": "http"}
        ),
    ),
    (
        "servers_of_cards_are_closed",
        lambda all_: of_kind(all_, "Service")[1]["spec"]["ports"][0].update(appProtocol="kubernetes.io/h2c"),
    ),
    (
        "servers_of_cards_are_closed",
        lambda all_: of_kind(all_, "NetworkPolicy")[1]["spec"]["ingress"][0]["ports"].append(
            {"protocol": "TCP", "port": "http"}
        ),
    ),
    ("tls_files_are_a_secret", lambda all_: server(all_)["args"].remove("--tls-ca=/srv/tls/ca.crt")),
    ("tls_files_are_a_secret", lambda all_: server(all_)["volumeMounts"][-1].pop("readOnly")),
    (
        "tls_files_are_a_secret",
        lambda all_: pod_of(all_, "Deployment")["volumes"][-1].update(secret={"secretName": "intaglio-tls"}),
    ),
    (
        "tls_files_are_a_secret",
        lambda all_: pod_of(all_, "Deployment")["volumes"][-1].update(
            {"configMap": {"name": "x"}, "secret": {}}
        ),
    ),
    (
        "metrics_exist",
        lambda all_: one(all_, "ScaledObject")["spec"]["triggers"][0]["metadata"].update(
            query='avg(nv_inference_pending_request_count{namespace="intaglio-l4"})'
        ),
    ),
    (
        "metrics_exist",
        lambda all_: one(all_, "PrometheusRule")["spec"]["groups"][0]["rules"][2].update(
            expr="intaglio_queue > 1"
        ),
    ),
    (
        "metrics_exist",
        lambda all_: one(all_, "ScaledObject")["spec"]["triggers"][1]["metadata"].update(
            query="sum(rate(intaglio_compute_seconds_total[5m]))"
        ),
    ),
    (
        "metrics_exist",
        lambda all_: one(all_, "ScaledObject")["spec"]["triggers"][1]["metadata"].update(
            query='sum(rate(intaglio_lora_swaps_total{namespace="intaglio-l4"}[5m]))'
        ),
    ),
]


def change_config(objects: Objects, old: str, new: str) -> None:
    (data,) = [found["data"] for found in of_kind(objects, "ConfigMap") if "intaglio.yaml" in found["data"]]
    assert old in data["intaglio.yaml"]
    data["intaglio.yaml"] = data["intaglio.yaml"].replace(old, new)


@pytest.mark.parametrize(("policy", "plant"), VIOLATIONS)
def test_a_planted_violation_is_found(
    overlays: dict[str, Objects], tmp_path: Path, policy: str, plant: Callable[[Objects], object]
) -> None:
    """The policy itself finds it."""
    objects = copy.deepcopy(overlays["l4"])
    plant(objects)
    assert list(POLICIES[policy](objects, deployment_of(objects, tmp_path))) != []


def test_every_policy_has_a_planted_violation() -> None:
    assert {policy for policy, _ in VIOLATIONS} == set(POLICIES)


def test_the_page_deletes_the_job_that_cannot_change(tmp_path: Path) -> None:
    """A change that no build notices changes the job, and not its name: Kubernetes refuses such an apply."""
    shutil.copytree(ROOT / "docker/kubernetes", tmp_path / "kubernetes")
    config = tmp_path / "kubernetes/overlays/l4/intaglio.yaml"
    before = one(rendered(config.parent), "Job")
    config.write_text(config.read_text().replace("drain_seconds: 300", "drain_seconds: 290"))
    after = one(rendered(config.parent), "Job")
    assert before["metadata"]["name"] == after["metadata"]["name"]
    assert before["spec"]["template"] != after["spec"]["template"]
    page = (ROOT / "docs/shipping.md").read_text()
    selector = "app.kubernetes.io/component=build"
    deletes = f"kubectl --namespace intaglio-l4 delete job --selector {selector} --ignore-not-found\n"
    assert f"{deletes}kubectl apply --kustomize ." in page
    name, value = selector.split("=")
    assert after["metadata"]["labels"][name] == value
