"""What every rendered overlay has to keep. Each policy gives what breaks it, in words; nothing means kept.

`POLICIES` maps their names to them. tests/docker/test_kubernetes.py plants a violation of each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from intaglio.contract.config import Deployment
from intaglio.serving.arguments import TritonSettings
from intaglio.serving.health import LIVE_PATH, PATH
from intaglio.triton_models.metrics import When
from reference.metrics import ALL_METRICS

from .availability import (
    a_stop_lets_requests_finish,
    lost_metrics_stop_no_server,
    nodes_can_be_drained,
    rollouts_keep_every_server,
)
from .cluster import Object, container_of, of_kind, one, pod_of, selects
from .network import nothing_goes_out, servers_are_reached
from .production import inner_ports, is_production, servers_of_cards_are_closed, tls_files_are_a_secret

__all__ = ["POLICIES", "Objects", "unknown_metrics"]

Objects = Sequence[Object]
Policy = Callable[[Objects, Deployment], Iterator[str]]
PODS: Final = ("Job", "Deployment")
SHARED_MEMORY_MIB: Final = 256
HEALTH: Final = ["python", "-m", "intaglio.serving.health"]
"""The probes of a pod in production, where HTTP asks for no certificate. Without an address it asks at the
port of the server that runs, so it cannot differ from the configuration's.
"""
PORT_OPTIONS: Final = ("--http-port", "--grpc-port", "--metrics-port")
KINDS_OF_LIMITS: Final = ("cpu", "memory", "ephemeral-storage")
OPTIONAL_METRICS: Final = {metric.full_name for metric in ALL_METRICS if metric.when is not When.ALWAYS}
"""A query of KEDA without a result is an error, so none may ask for these."""
SECRET_WORDS: Final = re.compile("token|secret|password|key", re.IGNORECASE)


def pods_have_one_container(objects: Objects, _: Deployment) -> Iterator[str]:
    """The other policies look at that one."""
    for kind in PODS:
        pod = pod_of(objects, kind)
        if len(pod["containers"]) != 1 or pod.get("initContainers") or pod.get("ephemeralContainers"):
            yield f"{kind}: has other containers, which no policy looks at"


def images_are_pinned(objects: Objects, _: Deployment) -> Iterator[str]:
    for kind in PODS:
        image = container_of(objects, kind)["image"]
        name, _, tag = image.rpartition("/")[2].partition(":")
        if "@sha256:" not in image and tag in ("", "latest"):
            yield f"{kind}: image {name} has no tag that stays; give it one, or a digest"


def nobody_is_root(objects: Objects, _: Deployment) -> Iterator[str]:
    for kind in PODS:
        pod, rights = pod_of(objects, kind)["securityContext"], container_of(objects, kind)["securityContext"]
        who = {**pod, **rights}
        if who.get("runAsNonRoot") is not True or who.get("runAsUser") != 1000:
            yield f"{kind}: must run as uid 1000, and not as root"
        if 0 in (who.get("runAsGroup", 0), who.get("fsGroup"), *who.get("supplementalGroups", ())):
            yield f"{kind}: must not have the group of root"


def containers_have_no_rights(objects: Objects, _: Deployment) -> Iterator[str]:
    for kind in PODS:
        pod, container = pod_of(objects, kind), container_of(objects, kind)
        rights = container["securityContext"]
        if rights.get("allowPrivilegeEscalation") is not False or rights.get("privileged"):
            yield f"{kind}: privileges may grow"
        if rights.get("readOnlyRootFilesystem") is not True:
            yield f"{kind}: its root can be written"
        if rights.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{kind}: it has capabilities"
        if {**pod["securityContext"], **rights}.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{kind}: seccomp is not the runtime's"
        if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{kind}: it shares a namespace with its node"
        if any("hostPath" in volume for volume in pod["volumes"]):
            yield f"{kind}: it mounts a folder of its node"
        if any("hostPort" in port for port in container.get("ports", ())):
            yield f"{kind}: it takes a port of its node"


def no_token_is_mounted(objects: Objects, _: Deployment) -> Iterator[str]:
    holders = [*(pod_of(objects, kind) for kind in PODS), one(objects, "ServiceAccount")]
    if any(holder.get("automountServiceAccountToken") is not False for holder in holders):
        yield "a pod gets a token of the Kubernetes API"
    volumes = [volume for kind in PODS for volume in pod_of(objects, kind)["volumes"]]
    sources = [source for volume in volumes for source in volume.get("projected", {}).get("sources", ())]
    if any("serviceAccountToken" in source for source in sources):
        yield "a volume holds a token"


def resources_are_bounded(objects: Objects, _: Deployment) -> Iterator[str]:
    for kind in PODS:
        resources = container_of(objects, kind).get("resources", {})
        for part in ("requests", "limits"):
            if missing := [name for name in KINDS_OF_LIMITS if name not in resources.get(part, {})]:
                yield f"{kind}: no {part} of {', '.join(missing)}"


def probes_ask_the_right_thing(objects: Objects, _: Deployment) -> Iterator[str]:
    container = container_of(objects, "Deployment")
    wanted = {"startupProbe": PATH, "readinessProbe": PATH, "livenessProbe": LIVE_PATH}
    for name, path in wanted.items():
        probe = container.get(name, {})
        if is_production(objects):
            command = [*HEALTH, "live"] if path == LIVE_PATH else HEALTH
            if probe.get("exec") != {"command": command} or "httpGet" in probe:
                yield f"{name}: must run {' '.join(command)}"
        elif probe.get("httpGet") != {"path": path, "port": "http"}:
            yield f"{name}: must ask {path} of port http"
    startup = container.get("startupProbe", {})
    allowed = startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3)
    longest = TritonSettings.__dataclass_fields__["load_seconds"].default
    if allowed < longest:
        yield f"startupProbe: gives up after {allowed} s; a start may take {longest:g} s"


def ports_are_those_of_the_deployment(objects: Objects, deployment: Deployment) -> Iterator[str]:
    server = deployment.server
    wanted = {"http": server.http_port, "grpc": server.grpc_port, "metrics": server.metrics_port}
    wanted = {name: port for name, port in wanted.items() if name not in inner_ports(objects)}
    container = container_of(objects, "Deployment")
    found = {port["name"]: port["containerPort"] for port in container["ports"]}
    if found != wanted:
        yield f"containerPorts {found}: the deployment's are {wanted}"
    for word in container["args"]:
        if word.partition("=")[0] in PORT_OPTIONS:
            yield f"args: {word}: the deployment says which port it is"
    for service in of_kind(objects, "Service"):
        for port in service["spec"]["ports"]:
            if port["port"] != wanted.get(port["targetPort"]):
                yield f"Service {service['metadata']['name']}: port {port['port']} is none of the server's"
    for end in one(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]:
        if end["port"] != "metrics":
            yield f"PodMonitor: port {end['port']} has no metrics"
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", ()):
            if unknown := {port["port"] for port in rule["ports"]} - set(wanted):
                yield f"NetworkPolicy: no port {', '.join(map(str, unknown))}"
    if "0.0.0.0" not in container["args"] and server.host != "0.0.0.0":
        yield "the server listens on its own loopback only"


def selectors_find_the_servers(objects: Objects, _: Deployment) -> Iterator[str]:
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    builds = one(objects, "Job")["spec"]["template"]["metadata"]["labels"]
    selectors = {
        "Deployment": one(objects, "Deployment")["spec"]["selector"],
        "PodDisruptionBudget": one(objects, "PodDisruptionBudget")["spec"]["selector"],
        "PodMonitor": one(objects, "PodMonitor")["spec"]["selector"],
    }
    for service in of_kind(objects, "Service"):
        selectors[f"Service {service['metadata']['name']}"] = {"matchLabels": service["spec"]["selector"]}
    for name, selector in selectors.items():
        if not selects(selector, labels) or selects(selector, builds):
            yield f"{name}: selects other pods than the servers"
    target = one(objects, "ScaledObject")["spec"]["scaleTargetRef"]["name"]
    if target != one(objects, "Deployment")["metadata"]["name"]:
        yield f"ScaledObject: there is no {target}"


def shared_memory_is_large_enough(objects: Objects, _: Deployment) -> Iterator[str]:
    for kind in PODS:
        mounts = {mount["mountPath"]: mount["name"] for mount in container_of(objects, kind)["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod_of(objects, kind)["volumes"]}
        empty = volumes.get(mounts.get("/dev/shm", ""), {}).get("emptyDir", {})
        if empty.get("medium") != "Memory" or _mebibytes(empty.get("sizeLimit", "0")) < SHARED_MEMORY_MIB:
            yield f"{kind}: /dev/shm must be memory, {SHARED_MEMORY_MIB} MiB or more"


def servers_cannot_write_builds(objects: Objects, deployment: Deployment) -> Iterator[str]:
    claims = {}
    for kind, may_write in (("Job", True), ("Deployment", False)):
        (mount,) = [one for one in container_of(objects, kind)["volumeMounts"] if one["name"] == "builds"]
        (volume,) = [one for one in pod_of(objects, kind)["volumes"] if one["name"] == "builds"]
        claims[kind] = volume["persistentVolumeClaim"]["claimName"]
        if mount.get("readOnly", False) is may_write:
            yield f"{kind}: the volume of the builds must be {'writable' if may_write else 'read-only'}"
        if not str(deployment.build).endswith(
            f"{mount['mountPath'].rpartition('/')[2]}/{_place(deployment)}"
        ):
            yield f"{kind}: {deployment.build} is not in the volume at {mount['mountPath']}"
    if len(set(claims.values())) != 1:
        yield f"the job builds into another volume than the servers read: {claims}"


def builds_have_names_of_their_own(objects: Objects, deployment: Deployment) -> Iterator[str]:
    library, key = _place(deployment).split("/")
    if key != deployment.digest[: len(key)] or len(key) < 12:
        yield f"build: the key of this configuration is {deployment.digest[:12]}; run: python -m reference"
    name = one(objects, "Job")["metadata"]["name"]
    if name != (wanted := f"intaglio-build-{library.replace('.', '-')}-{key}"):
        yield f"Job {name}: must be {wanted}; run: python -m reference"


def both_run_on_one_kind_of_card(objects: Objects, deployment: Deployment) -> Iterator[str]:
    needs = []
    for kind in PODS:
        limits = container_of(objects, kind)["resources"]["limits"]
        affinity = pod_of(objects, kind).get("affinity", {}).get("nodeAffinity", {})
        terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get(
            "nodeSelectorTerms", []
        )
        needs.append((limits.get("nvidia.com/gpu"), repr(terms)))
    if needs[0] != needs[1]:
        yield "job and server may run on different cards"
    if (wanted := deployment.target != "cpu") != (needs[0][0] == "1") or wanted != (
        "gpu.product" in needs[0][1]
    ):
        yield f"target {deployment.target}: one card of a named product, and only where there is one"
    if wanted and deployment.memory_limit_gib is None:
        yield "memory_limit_gib is missing, so a build that the card cannot hold is served"


def secrets_are_references(objects: Objects, _: Deployment) -> Iterator[str]:
    if of_kind(objects, "Secret"):
        yield "a Secret is written here; it belongs where secrets are kept"
    for kind in PODS:
        for variable in container_of(objects, kind).get("env", ()):
            if "value" in variable and SECRET_WORDS.search(variable["name"]):
                yield f"{kind}: {variable['name']} has its value here"


def metrics_exist(objects: Objects, _: Deployment) -> Iterator[str]:
    texts = [str(found) for kind in ("ScaledObject", "PrometheusRule") for found in of_kind(objects, kind)]
    texts += [
        str(found) for found in of_kind(objects, "ConfigMap") if "dashboard" in found["metadata"]["name"]
    ]
    if unknown := unknown_metrics(" ".join(texts)):
        yield f"no metric {', '.join(sorted(unknown))}"
    namespace = one(objects, "Namespace")["metadata"]["name"]
    for trigger in one(objects, "ScaledObject")["spec"]["triggers"]:
        query = trigger["metadata"]["query"]
        if f'namespace="{namespace}"' not in query:
            yield f"trigger {trigger['name']}: it does not ask for the servers of {namespace}"
        if optional := _metric_names(query) & OPTIONAL_METRICS:
            yield f"trigger {trigger['name']}: not every server has {', '.join(sorted(optional))}"


def unknown_metrics(text: str) -> set[str]:
    """Names in `text` that look like metrics, and that no server has."""
    return _metric_names(text) - {metric.full_name for metric in ALL_METRICS} - {"intaglio_yaml"}


def _metric_names(text: str) -> set[str]:
    return set(re.findall(r"\b(?:intaglio|nv)_[a-z_]+", text))


def _place(deployment: Deployment) -> str:
    """`LIBRARY/KEY`, where the volume has the build."""
    return "/".join(deployment.build.parts[-2:])


def _mebibytes(size: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)?", size).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": 1, "Gi": 1024, None: 0}[unit]


POLICIES: Final[Mapping[str, Policy]] = {
    policy.__name__: policy
    for policy in (
        pods_have_one_container,
        images_are_pinned,
        nobody_is_root,
        containers_have_no_rights,
        no_token_is_mounted,
        resources_are_bounded,
        probes_ask_the_right_thing,
        a_stop_lets_requests_finish,
        rollouts_keep_every_server,
        nodes_can_be_drained,
        ports_are_those_of_the_deployment,
        selectors_find_the_servers,
        shared_memory_is_large_enough,
        servers_cannot_write_builds,
        builds_have_names_of_their_own,
        both_run_on_one_kind_of_card,
        nothing_goes_out,
        servers_are_reached,
        lost_metrics_stop_no_server,
        secrets_are_references,
        servers_of_cards_are_closed,
        tls_files_are_a_secret,
        metrics_exist,
    )
}
