"""Every query of alerts, dashboard and KEDA, run by a real Prometheus that scrapes the real server."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.triton_models.metrics import When
from reference.metrics import ALL_METRICS

from ..served_metrics import served_metrics
from .cluster import deployment_of, one
from .containers import Container
from .tools import ROOT, output_of, program

pytestmark = pytest.mark.ship

DOCKER = ROOT / "docker"
ALERT_TESTS = Path(__file__).with_name("alerts_test.yaml")
NAMESPACE = "intaglio-cpu-demo"
PLACE = "127.0.0.1:9090"
VARIABLES = {"$instance": ".*", "$__rate_interval": "1m"}
START_SECONDS = 60
RESTS_MINUTES = 120
"""Longer than any alert waits before it fires."""
Query = Callable[[str], list[Any]]


def alert_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DOCKER / "prometheus/alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_queries() -> dict[str, str]:
    """Query of every target of the dashboard, by its panel's title and letter."""
    dashboard = json.loads((DOCKER / "kubernetes/components/monitoring/dashboard.json").read_text())
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }


def with_values(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def test_every_alert_fires_and_is_silent_when_it_should() -> None:
    output_of(program("promtool", "Debian's prometheus"), "test", "rules", ALERT_TESTS)


def test_every_alert_has_such_a_test() -> None:
    tests = yaml.safe_load(ALERT_TESTS.read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in alert_rules()}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


def test_a_changed_threshold_is_noticed(tmp_path: Path) -> None:
    rules = (DOCKER / "prometheus/alerts.yaml").read_text()
    (tmp_path / "alerts.yaml").write_text(rules.replace("0.05 *", "0.5 *"))
    tests = ALERT_TESTS.read_text().replace("../../docker/prometheus/alerts.yaml", "alerts.yaml")
    (tmp_path / "test.yaml").write_text(tests)
    with pytest.raises(AssertionError, match="IntaglioRequestsFail"):
        output_of(program("promtool", "Debian's prometheus"), "test", "rules", tmp_path / "test.yaml")


def healthy_server(rules: str) -> str:
    """A test for `promtool`: no alert of `rules` fires at a server that rests and has no optional metric."""
    labels = 'instance="a:8002", job="intaglio", namespace="n"'
    always = [metric.full_name for metric in ALL_METRICS if metric.when is When.ALWAYS]
    series = [{"series": f"up{{{labels}}}", "values": f"1x{RESTS_MINUTES}"}]
    series += [{"series": f"{name}{{{labels}}}", "values": f"0x{RESTS_MINUTES}"} for name in always]
    silent = [
        {"eval_time": f"{RESTS_MINUTES}m", "alertname": rule["alert"], "exp_alerts": []}
        for rule in alert_rules()
    ]
    case = {"interval": "1m", "input_series": series, "alert_rule_test": silent}
    return yaml.safe_dump({"rule_files": [rules], "evaluation_interval": "1m", "tests": [case]})


def test_no_alert_fires_where_optional_metrics_are_missing(tmp_path: Path) -> None:
    promtool = program("promtool", "Debian's prometheus")
    test = tmp_path / "test.yaml"
    rules = DOCKER / "prometheus/alerts.yaml"
    test.write_text(healthy_server(str(rules)))
    output_of(promtool, "test", "rules", test)
    needy = tmp_path / "alerts.yaml"
    needy.write_text(
        rules.read_text().replace("< 14 * 86400", "< 14 * 86400 or absent(intaglio_instance_up)")
    )
    test.write_text(healthy_server(str(needy)))
    with pytest.raises(AssertionError, match="IntaglioCertificateExpires"):
        output_of(promtool, "test", "rules", test)


def test_the_configuration_of_prometheus_is_right() -> None:
    output_of(
        program("promtool", "Debian's prometheus"), "check", "config", DOCKER / "prometheus/prometheus.yaml"
    )


@pytest.fixture(scope="module")
def query(server: Container, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    """Ask a Prometheus that scrapes `server`, which has drawn pictures meanwhile."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((DOCKER / "prometheus/prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": ["127.0.0.1:8002"], "labels": {"namespace": NAMESPACE}}]
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DOCKER / "prometheus/alerts.yaml")]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    inside = ["nsenter", f"--net=/proc/{server.pid}/ns/net"]
    prometheus = program("prometheus", "Debian's prometheus")
    promtool = program("promtool", "Debian's prometheus")
    options = [f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]

    def ask(text: str) -> list[Any]:
        found = output_of(*inside, promtool, "query", "instant", "-o", "json", f"http://{PLACE}", text)
        return list(json.loads(found))

    def draw(seed: int) -> None:
        words = (
            "intaglio",
            "generate",
            "a person waving",
            "--lora",
            "night:0.8",
            "--seed",
            str(seed),
            "--steps",
            "2",
        )
        assert server.run(*words, "--out", "/tmp/asked.png", "--force").returncode == 0

    draw(1)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*inside, prometheus, *options, f"--web.listen-address={PLACE}"], stdout=log, stderr=log
        )
    try:
        wait_for(lambda: ask("intaglio_steps_total"), folder / "log")
        draw(2)  # what grows between two scrapes has a rate
        wait_for(lambda: ask("rate(intaglio_steps_total[1m]) > 0"), folder / "log")
        yield ask
    finally:
        process.terminate()
        process.wait(30)


def wait_for(ready: Callable[[], list[Any]], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if ready():
                return
        except AssertionError:  # it does not listen yet
            pass
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


@pytest.fixture(scope="module")
def lacking(demo: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The metrics that `server` does not have, by its deployment."""
    served = served_metrics(deployment_of(demo, tmp_path_factory.mktemp("demo")))
    return {metric.full_name for metric in ALL_METRICS if metric not in served}


def metric_names(text: str) -> set[str]:
    return set(re.findall(r"\b(?:intaglio_[a-z_]+|up)(?=[{\[) ]|$)", text))


def test_every_panel_shows_something(query: Query, lacking: set[str]) -> None:
    queries = dashboard_queries()
    assert queries
    assert not {title for title, text in queries.items() if metric_names(text) & lacking}, "shown elsewhere"
    assert [title for title, text in queries.items() if not query(with_values(text))] == []


def test_the_queries_of_keda_give_one_number(query: Query, demo: list[dict[str, Any]]) -> None:
    for trigger in one(demo, "ScaledObject")["spec"]["triggers"]:
        (found,) = query(trigger["metadata"]["query"])
        assert float(found["value"][1]) >= 0, trigger["name"]


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: str(rule["alert"]))
def test_every_alert_asks_for_what_is_there(query: Query, lacking: set[str], rule: dict[str, Any]) -> None:
    """It does not fire at a healthy server, and each of its metrics is one that such a server has."""
    assert query(rule["expr"]) == []
    names = metric_names(rule["expr"])
    assert names
    assert {name for name in names if not query(name)} == names & lacking
