"""A real Envoy with TLS at both ends, before real servers in production."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.contract.config import Deployment
from intaglio_client import NO_RETRIES, Client, Tls, Unavailable

from ..client.certificates import Certificates
from ..leavings import own_servers
from ..serving.conftest import made, miniature, ours
from .cluster import rendered
from .envoy import envoy, proxy
from .fleet import Replica, fleet
from .load import SETS, SMALL
from .proxy_policies import config_of, of_the_proxy
from .test_proxy import LONG, busy, wait_until
from .test_proxy_rules import validated
from .tools import ROOT

pytestmark = [pytest.mark.ship, pytest.mark.timeout(300)]
__all__ = ["made", "miniature", "ours", "own_servers"]


@pytest.fixture(scope="module")
def config(made: Certificates) -> dict[str, Any]:
    """That of the cluster, with files of this machine. Servers trust another authority than Envoy, so that no
    client can pass Envoy by.
    """
    text = yaml.safe_dump(config_of(of_the_proxy(rendered(ROOT / "docker/kubernetes/variants/l4-proxy"))))
    files = {
        "/srv/tls/tls.crt": "server.pem",
        "/srv/tls/tls.key": "server.key",
        "/srv/tls/ca.crt": "ca.pem",
        "/srv/client-tls/tls.crt": "stranger.pem",
        "/srv/client-tls/tls.key": "stranger.key",
        "/srv/client-tls/ca.crt": "ca.pem",
    }
    for there, here in files.items():
        assert text.count(there) == 1
        text = text.replace(there, str(made.file(here)))
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


@pytest.fixture(scope="module")
def replicas(
    miniature: Deployment, made: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Replica]]:
    envoy()  # skips before servers are started
    files = {"cert": "server.pem", "key": "server.key", "ca": "foreign.pem"}
    words = ["--production", *(f"--tls-{name}={made.file(file)}" for name, file in files.items())]
    with fleet(miniature, tmp_path_factory.mktemp("fleet"), size=2, words=words) as running:
        yield running


def test_the_configuration_is_valid(config: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "envoy.yaml"
    path.write_text(yaml.safe_dump(config))
    checked = validated(path)
    assert checked.returncode == 0, checked.stderr
    assert "eprecated" not in checked.stderr
    path.write_text(path.read_text().replace("require_client_certificate", "require_client_certificat"))
    assert "require_client_certificat" in validated(path).stderr


def refused(url: str, tls: Tls | None) -> None:
    with Client(url, tls=tls, retries=NO_RETRIES, deadline=20) as client, pytest.raises(Unavailable):
        client.generate("a person in a room", **SMALL)


def test_clients_show_envoy_a_certificate_and_envoy_shows_its_own(
    replicas: list[Replica], config: dict[str, Any], made: Certificates, ours: Tls, tmp_path: Path
) -> None:
    stranger = Tls(ca=ours.ca, certificate=made.file("stranger.pem"), key=made.file("stranger.key"))
    with proxy([one.endpoints for one in replicas], tmp_path / "envoy", config=config) as before:
        with Client(before.url, tls=ours, deadline=60) as client:
            assert client.generate("a person in a room", **SMALL).data
            assert client.stream("a person in a room", **SMALL).result()[0].data
        for tls in (None, Tls(ca=ours.ca), stranger):
            refused(before.url, tls)
        refused(replicas[0].endpoints.url("grpc"), ours)
    assert [one.method for one in before.asked()] == ["ModelInfer", "ModelStreamInfer"]


def test_envoy_asks_only_who_is_one_of_the_servers(
    replicas: list[Replica], config: dict[str, Any], ours: Tls, tmp_path: Path
) -> None:
    """Another name that the authority signed is not enough."""
    text = yaml.safe_dump(config)
    other = yaml.safe_load(text.replace("exact: intaglio-servers", "exact: intaglio-clients"))
    assert other != config
    with proxy([replicas[0].endpoints], tmp_path / "envoy", config=other) as before:
        refused(before.url, ours)
    (asked,) = before.asked()
    assert (asked.method, "UF" in asked.flags) == ("ModelInfer", True), "no connection, to a healthy server"


def test_a_server_that_drains_is_passed_over(
    replicas: list[Replica], config: dict[str, Any], ours: Tls, tmp_path: Path
) -> None:
    """It finishes its long picture, while one of the same LoRAs goes to the other."""
    with (
        proxy([one.endpoints for one in replicas], tmp_path / "envoy", config=config) as before,
        Client(before.url, tls=ours, deadline=120) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        long = pool.submit(client.generate, "a person on a beach", **LONG | {"steps": 80}, loras=SETS[1])
        wait_until(lambda: len(busy(replicas)) == 1)
        (stops,) = busy(replicas)
        (stays,) = [one for one in replicas if one is not stops]
        ends = pool.submit(stops.stop)
        before.wait_for([stays.endpoints.url("grpc")])
        next_one = client.generate("a person in a room", **SMALL, loras=SETS[1])
        finished = long.result()
        assert ends.result() == 0
    places = [(one.id, one.server) for one in before.sent()]
    assert sorted(places) == sorted(
        [
            (finished.request_id, stops.endpoints.url("grpc")),
            (next_one.request_id, stays.endpoints.url("grpc")),
        ]
    )
