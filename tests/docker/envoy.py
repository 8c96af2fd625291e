"""Envoy with the configuration of docker/, before servers of this machine."""

from __future__ import annotations

import copy
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from intaglio.serving.endpoints import Endpoints, choose_ports

from .fleet import status_of
from .tools import ROOT, program

__all__ = ["CONFIG", "Attempt", "Proxy", "cluster_of", "configuration", "envoy", "http_of", "proxy"]

CONFIG: Final = ROOT / "docker/kubernetes/components/proxy/envoy.yaml"
ROUND_ROBIN: Final = "type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin"
_SECONDS: Final = 30.0


def configuration() -> dict[str, Any]:
    """What docker/ has."""
    found: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    return found


def envoy() -> str:
    """Its program."""
    return program("envoy", "the extra `ship`")


def cluster_of(config: dict[str, Any], name: str = "servers") -> dict[str, Any]:
    (found,) = [one for one in config["static_resources"]["clusters"] if one["name"] == name]
    return dict(found)


def http_of(config: dict[str, Any], listener: str = "grpc") -> Any:
    """The HTTP connection manager of a listener."""
    (found,) = [one for one in config["static_resources"]["listeners"] if one["name"] == listener]
    return found["filter_chains"][0]["filters"][0]["typed_config"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One line of a log: a request as Envoy got it, or as it sent it to a server."""

    id: str
    time: float
    server: str
    method: str
    loras: str
    status: str
    flags: str
    attempts: int
    received: int
    """Bytes of the answer of a server; 0 in the log of requests as they came."""


class Proxy:
    """A running one."""

    def __init__(self, grpc: Endpoints, admin: Endpoints, folder: Path) -> None:
        self.url = grpc.url("grpc")
        self.metrics = grpc.url("metrics")
        self._admin = admin.url("http")
        self._folder = folder

    def asked(self) -> list[Attempt]:
        """The requests that clients sent and that are over; complete once Envoy has stopped."""
        return _attempts(self._folder / "stdout")

    def sent(self) -> list[Attempt]:
        """What was sent to servers, once for each attempt."""
        return _attempts(self._folder / "upstream")

    def healthy(self) -> set[str]:
        """Addresses of the servers that are asked."""
        found = self._json("clusters?format=json")
        (hosts,) = [one["host_statuses"] for one in found["cluster_statuses"] if one["name"] == "servers"]
        good = [one for one in hosts if one["health_status"] == {"eds_health_status": "HEALTHY"}]
        places = [one["address"]["socket_address"] for one in good]
        return {f"{place['address']}:{place['port_value']}" for place in places}

    def statistic(self, name: str) -> int:
        """A counter of the cluster of servers."""
        found = self._json(f"stats?format=json&filter=^cluster\\.servers\\.{name}$")
        return sum(int(one.get("value", 0)) for one in found["stats"])

    def wait_for(self, urls: Sequence[str]) -> None:
        """Wait until exactly these servers are asked."""
        end = time.monotonic() + _SECONDS
        while self.healthy() != set(urls):
            assert time.monotonic() < end, f"Envoy asks {self.healthy()}, not {urls}"
            time.sleep(0.05)

    def _json(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self._admin}/{path}", timeout=10) as answer:
            return json.load(answer)


def _attempts(log: Path) -> list[Attempt]:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [
        Attempt(
            id=line["request_id"] or "",
            time=float(line.get("seconds", 0)),
            server=line["server"] or "",
            method=line["method"].rpartition("/")[2],
            loras=line["loras"] or "",
            status=str(line["grpc_status"]),
            flags=line["flags"],
            attempts=int(line["attempts"] or 0),
            received=int(line.get("received", 0)),
        )
        for line in lines
    ]


def _local(
    config: dict[str, Any], servers: Sequence[Endpoints], grpc: Endpoints, admin: Endpoints, log: Path
) -> dict[str, Any]:
    """`config` with addresses of this machine, and a log of each attempt."""
    config = copy.deepcopy(config)
    static = config["static_resources"]
    ports = {"grpc": grpc.grpc_port, "metrics": grpc.metrics_port}
    for listener in static["listeners"]:
        listener["address"]["socket_address"] = {
            "address": grpc.host,
            "port_value": ports[listener["name"]],
        }
    place = {"address": admin.host, "port_value": admin.http_port}
    config["admin"]["address"]["socket_address"] = place
    (inside,) = cluster_of(config, "admin")["load_assignment"]["endpoints"][0]["lb_endpoints"]
    inside["endpoint"]["address"]["socket_address"] = place
    ends = [
        {
            "endpoint": {
                "address": {"socket_address": {"address": one.host, "port_value": one.grpc_port}},
                "health_check_config": {"port_value": one.http_port},
            },
            # The place on the ring comes from a name, so that it is the same in every run.
            "metadata": {"filter_metadata": {"envoy.lb": {"hash_key": f"server-{number}"}}},
        }
        for number, one in enumerate(servers)
    ]
    cluster_of(config)["load_assignment"]["endpoints"] = [{"lb_endpoints": ends}]
    fields = http_of(config)["access_log"][0]["typed_config"]["log_format"]["json_format"]
    attempt = {**fields, "seconds": "%START_TIME(%s.%3f)%", "received": "%UPSTREAM_WIRE_BYTES_RECEIVED%"}
    http_of(config)["http_filters"][-1]["typed_config"]["upstream_log"] = [
        {
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": str(log),
                "log_format": {"json_format": attempt},
            },
        }
    ]
    return config


@contextmanager
def proxy(
    servers: Sequence[Endpoints],
    folder: Path,
    *,
    round_robin: bool = False,
    ready: bool = True,
    most_bytes: int | None = None,
    config: dict[str, Any] | None = None,
) -> Iterator[Proxy]:
    """Envoy before `servers`, all of which are ready, or none. After the block its logs are complete.

    `most_bytes` takes the place of `max_request_bytes`, `config` that of `configuration()`.
    """
    grpc, admin = choose_ports(Endpoints()), choose_ports(Endpoints())
    folder.mkdir()
    config = _local(config or configuration(), servers, grpc, admin, folder / "upstream")
    if round_robin:
        (policy,) = cluster_of(config)["load_balancing_policy"]["policies"]
        policy["typed_extension_config"] = {
            "name": "envoy.load_balancing_policies.round_robin",
            "typed_config": {"@type": ROUND_ROBIN},
        }
    if most_bytes is not None:
        http_of(config)["http_filters"][0]["typed_config"]["max_request_bytes"] = most_bytes
    (folder / "envoy.yaml").write_text(yaml.safe_dump(config))
    words = [envoy(), "-c", str(folder / "envoy.yaml"), "--disable-hot-restart", "--concurrency", "2"]
    with (
        (folder / "stdout").open("w") as out,
        (folder / "stderr").open("w") as problems,
        subprocess.Popen([*words, "--log-level", "warning"], stdout=out, stderr=problems) as process,
    ):
        try:
            running = Proxy(grpc, admin, folder)
            end = time.monotonic() + _SECONDS
            while status_of(f"http://{running.metrics}/ready") != 200:
                assert process.poll() is None, (folder / "stderr").read_text()
                assert time.monotonic() < end, "Envoy does not become ready"
                time.sleep(0.05)
            running.wait_for([one.url("grpc") for one in servers if ready])
            yield running
        finally:
            process.terminate()
            process.wait(30)
