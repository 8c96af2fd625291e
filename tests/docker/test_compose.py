"""What in docker/ can be compared without running it: compose.yaml, Grafana's files and metrics' names."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
import yaml
from typer.main import get_command

from intaglio.contract.config import Deployment, load_deployment
from intaglio.serving.command import app
from intaglio.serving.health import PATH

from .policies import unknown_metrics
from .tools import ROOT

DOCKER = ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DASHBOARD = DOCKER / "kubernetes/components/monitoring/dashboard.json"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()


def test_compose_has_no_service_that_is_not_there() -> None:
    assert set(SERVICES) == {"volume", "build", "server", "prometheus", "grafana"}
    for service in SERVICES.values():
        for name in service.get("depends_on", ()):
            assert name in SERVICES


def test_the_image_of_the_server_is_closed_unless_it_is_told_otherwise() -> None:
    words = json.loads(DOCKERFILE.rpartition("CMD ")[2].replace("\\\n", ""))
    known = {option for one in get_command(app).params for option in one.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert {"--production", "--tls-cert", "--tls-key", "--tls-ca"} <= set(words)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_locked(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    image, _, tag = service["image"].rpartition(":")
    assert image
    assert tag not in ("", "latest")
    if name != "volume":
        assert not str(service["user"]).startswith("0")
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), "other machines reach it"


def test_the_files_that_compose_mounts_are_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_copied_into_a_service_is_a_file(name: str) -> None:
    """Compose refuses a secret or a configuration from a variable where the root is read-only."""
    for kind in ("secrets", "configs"):
        for used in SERVICES[name].get(kind, ()):
            source = used["source"] if isinstance(used, dict) else used
            assert set(COMPOSE[kind][source]) == {"file"}, f"{kind} {source}"


def test_grafana_has_no_password_that_everybody_knows() -> None:
    password = SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"]
    assert password.startswith("${GRAFANA_ADMIN_PASSWORD:?"), "compose must refuse to start without one"


def test_the_server_has_time_to_drain() -> None:
    server = SERVICES["server"]
    drain = load_deployment(ROOT / server["command"][1]).server.drain_seconds
    assert int(server["stop_grace_period"].removesuffix("s")) > drain + 10


def test_prometheus_and_grafana_find_each_other() -> None:
    source = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((DOCKER / "grafana/provisioning/dashboards/intaglio.yaml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    assert any(f":{folder}/intaglio.json" in volume for volume in SERVICES["grafana"]["volumes"])


@pytest.mark.parametrize(
    "path", [DASHBOARD, DOCKER / "prometheus/alerts.yaml"], ids=lambda path: str(path.name)
)
def test_queries_name_metrics_that_servers_have(path: Any) -> None:
    text = path.read_text()
    assert "intaglio_queue_depth" in text
    assert unknown_metrics(text) == set()
    assert unknown_metrics(text.replace("intaglio_queue_depth", "intaglio_depth")) == {"intaglio_depth"}


def port_problems(services: dict[str, Any], deployment: Deployment) -> list[str]:
    """What in compose, Prometheus' targets and the Dockerfile is another port than `deployment` has."""
    server = deployment.server
    problems = []
    opened = [int(port.rpartition(":")[2]) for port in services["server"]["ports"]]
    if opened != [server.http_port, server.grpc_port]:
        problems.append(f"compose opens {opened}")
    config = yaml.safe_load((DOCKER / "prometheus/prometheus.yaml").read_text())
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    if target != f"server:{server.metrics_port}":
        problems.append(f"Prometheus asks {target}")
    exposed = re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)
    if exposed != [f"{server.http_port} {server.grpc_port} {server.metrics_port}"]:
        problems.append(f"the image exposes {exposed}")
    check = re.findall(r"^HEALTHCHECK .* CMD (.*)$", DOCKERFILE, re.MULTILINE)
    if check != ['["python", "-m", "intaglio.serving.health"]']:
        problems.append(f"{check} asks at a port of its own")
    if any("-port" in word for word in services["server"]["command"]):
        problems.append("the command has ports of its own")
    return problems


def test_ports_are_those_of_the_configuration() -> None:
    """The health check finds the port of the server that runs, whatever it is."""
    deployment = load_deployment(ROOT / SERVICES["server"]["command"][1])
    assert port_problems(SERVICES, deployment) == []
    changed = deployment.server.model_copy(update={"http_port": 9000, "metrics_port": 9002})
    found = port_problems(SERVICES, deployment.model_copy(update={"server": changed}))
    assert [problem.split()[0] for problem in found] == ["compose", "Prometheus", "the"]


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    cells = [
        (place["x"] + x, place["y"] + y)
        for place in places
        for x in range(place["w"])
        for y in range(place["h"])
    ]
    assert len(cells) == len(set(cells))


def test_the_dockerfile_and_pyproject_agree() -> None:
    """Folders that the wheel holds reach the build, and the extras that the Dockerfile names exist."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for folder in project["tool"]["hatch"]["build"]["only-include"]:
        assert any(folder == name or folder.startswith(f"{name}/") for name in let_in), folder
    for name in let_in:
        assert (ROOT / name).exists(), name
    extras = set(project["project"]["optional-dependencies"])
    composed = SERVICES["server"]["build"]["args"]["EXTRAS"]
    named = [*re.findall(r"EXTRAS=([a-z,]+)", DOCKERFILE), composed]
    assert len(named) >= 4
    for words in named:
        assert set(words.split(",")) <= extras


def test_the_probe_asks_a_model_of_every_build() -> None:
    model = re.fullmatch(r"/v2/models/(\w+)/versions/1/ready", PATH)
    assert model is not None
    assert (ROOT / "model_repository" / model[1] / "config.pbtxt").is_file()
