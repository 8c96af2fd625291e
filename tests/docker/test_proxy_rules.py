"""Envoy's configuration before servers that a test scripts: what is sent again, and what it agrees with."""

from __future__ import annotations

import http.server
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from intaglio.contract.server import Server
from intaglio.serving.endpoints import Endpoints, choose_ports
from intaglio.serving.health import PATH
from intaglio.triton_models.jobs import Pace
from intaglio.triton_models.stopping import REFUSAL
from intaglio_client import NO_RETRIES, Client, Unavailable, Unreachable
from intaglio_client.connections.proxy_headers import LORAS_HEADER, REQUEST_ID_HEADER

from ..client.fake_server import FakeServer, fake_server, picture
from .envoy import CONFIG, cluster_of, configuration, envoy, http_of, proxy

pytestmark = pytest.mark.ship


def test_without_servers_nothing_was_sent(tmp_path: Path) -> None:
    """So a request without a seed may be sent again, too."""
    nobody = choose_ports(Endpoints())
    with (
        proxy([nobody], tmp_path / "envoy", ready=False) as before,
        Client(before.url, retries=NO_RETRIES) as client,
        pytest.raises(Unreachable),
    ):
        client.generate("a person")
    assert [one.flags for one in before.asked()] == ["UH"]


class Ready(http.server.BaseHTTPRequestHandler):
    """Answers every health check with 200."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def scripted(answer: Any) -> Iterator[tuple[list[Endpoints], list[FakeServer]]]:
    """Three servers of the protocol that `answer`, and that health checks always find ready."""
    with ExitStack() as stack:
        fakes = [stack.enter_context(fake_server(answer)) for _ in range(3)]
        health = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ready)
        threading.Thread(target=health.serve_forever, daemon=True).start()
        stack.callback(health.shutdown)
        ports = [int(one.url.rpartition(":")[2]) for one in fakes]
        yield [Endpoints(http_port=health.server_port, grpc_port=port) for port in ports], fakes


@pytest.mark.parametrize(
    ("text", "again"),
    [
        (REFUSAL, True),
        ("in ensemble 'sdxl', " + Pace().queue_full().args[0], True),
        ("Request for unknown model: 'sdxl' has no available versions", True),
        ("loras: cannot apply night; none is resident", False),
        ("Socket closed", False),
    ],
)
def test_envoy_sends_again_what_no_server_has_begun(tmp_path: Path, text: str, again: bool) -> None:
    """To another server, without a seed, and nothing else: the second picture would not be the first."""
    refused: list[int] = []

    def answer(context: Any) -> Iterator[Any]:
        if not refused:
            refused.append(1)
            context.abort(grpc.StatusCode.UNAVAILABLE, text)
        yield from picture(context)

    with (
        scripted(answer) as (servers, fakes),
        proxy(servers, tmp_path / "envoy") as before,
        Client(before.url, retries=NO_RETRIES) as client,
    ):
        if again:
            assert client.generate("a fox").data
        else:
            with pytest.raises(Unavailable):
                client.generate("a fox")
    assert sorted(len(one.requests) for one in fakes) == ([0, 1, 1] if again else [0, 0, 1])
    assert [one.attempts for one in before.asked()] == [2 if again else 1]


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    """Envoy reads it, finds nothing deprecated, and notices a misspelt field."""
    checked = validated(CONFIG)
    assert checked.returncode == 0, checked.stderr
    assert "eprecated" not in checked.stderr
    wrong = tmp_path / "envoy.yaml"
    wrong.write_text(CONFIG.read_text().replace("healthy_panic_threshold", "healthy_panic_treshold"))
    assert "healthy_panic_treshold" in validated(wrong).stderr


def validated(path: Path) -> subprocess.CompletedProcess[str]:
    command = [envoy(), "--mode", "validate", "-c", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_it_agrees_with_servers_and_clients() -> None:
    """Addresses, the health check, what a refusal says, and the headers."""
    config, server = configuration(), Server()
    cluster, http = cluster_of(config), http_of(config)
    (end,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert end["endpoint"]["address"]["socket_address"]["port_value"] == server.grpc_port
    assert end["endpoint"]["health_check_config"]["port_value"] == server.http_port
    assert cluster["health_checks"][0]["http_health_check"]["path"] == PATH
    routes = http["route_config"]["virtual_hosts"][0]["routes"]
    retry = routes[0]["route"]["retry_policy"]
    texts = [one["string_match"]["contains"] for one in retry["retriable_headers"]]
    said = [
        REFUSAL,
        Pace().queue_full().args[0],
        "Request for unknown model: 'sdxl' has no available versions",
    ]
    for text in said:
        assert sum(part in text for part in texts) == 1, text
    assert len(texts) == len(said)
    assert routes[0]["route"]["hash_policy"] == [{"header": {"header_name": LORAS_HEADER}}]
    assert f"%REQ({REQUEST_ID_HEADER.upper()})%" in str(http["access_log"])
    assert http["preserve_external_request_id"] is True
