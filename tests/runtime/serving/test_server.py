"""A deployment's server, without Triton."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from intaglio.contract.config import load_deployment
from intaglio.errors import ConfigError, Unavailable
from intaglio.serving.change import UnloadFailed
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio.telemetry.settings import TelemetrySettings

from .conftest import PLATE


def test_a_server_that_cannot_load_says_so(tmp_path: Path) -> None:
    config = tmp_path / "plate.yaml"
    config.write_text(PLATE)
    server = Server(load_deployment(config))
    server.settings = replace(server.settings, reloadable=False)
    with pytest.raises(ConfigError, match="does not let Triton's secret be hidden"):
        server.reload()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("grpc_port: 9001", "server.grpc_port 8001 -> 9001"),
        ("host: 0.0.0.0, http_port: 0", "server.host 127.0.0.1 -> 0.0.0.0, server.http_port 8000 -> 0"),
        ("queue_size: 3", "server.queue_size 32 -> 3"),
        ("workers: 2", "server.workers 1 -> 2"),
        ("drain_seconds: 5", "server.drain_seconds 30 -> 5"),
        (
            "log_format: json, log_level: debug",
            "server.log_format text -> json, server.log_level info -> debug",
        ),
        ("trace_every: 9", "server.trace_every 1 -> 9"),
    ],
)
def test_a_changed_setting_of_the_server_needs_a_restart(tmp_path: Path, changed: str, said: str) -> None:
    """Whatever ports the command line gave."""
    config = tmp_path / "plate.yaml"
    config.write_text(PLATE)
    server = Server(load_deployment(config), endpoints=Endpoints(grpc_port=7777))
    config.write_text(f"{PLATE[:-1]}, server: {{{changed}}}}}")
    with pytest.raises(ConfigError) as refused:
        server.reload()
    assert str(refused.value) == f"{said}: needs a restart of `intaglio serve`; nothing was reloaded"


def test_how_long_requests_may_take_at_the_end_is_configured(tmp_path: Path) -> None:
    config = tmp_path / "plate.yaml"
    config.write_text(f"{PLATE[:-1]}, server: {{drain_seconds: 7}}}}")
    assert Server(load_deployment(config)).settings.drain_seconds == 7


def test_what_is_logged_and_traced_is_configured(tmp_path: Path) -> None:
    config = tmp_path / "plate.yaml"
    url = "http://collector:4318/v1/traces"
    keys = f"log_format: json, log_level: warning, traces: '{url}', trace_every: 10"
    config.write_text(f"{PLATE[:-1]}, server: {{{keys}}}}}")
    settings = Server(load_deployment(config)).settings
    assert settings.telemetry == TelemetrySettings(format="json", level="warning", traces=url)
    assert settings.trace_every == 10
    assert dict(settings.environment).items() >= settings.telemetry.environment.items()


def test_a_server_that_stops_is_not_reloaded(tmp_path: Path) -> None:
    config = tmp_path / "plate.yaml"
    config.write_text(PLATE)
    server = Server(load_deployment(config))
    server.request_stop()
    with pytest.raises(Unavailable, match=r"^the server is stopping$"):
        server.reload()


def test_a_reload_that_leaves_the_old_build_loaded_is_not_called_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new build serves by then."""
    config = tmp_path / "plate.yaml"
    config.write_text(PLATE)
    said: list[str] = []
    server = Server(load_deployment(config), report=said.append)

    def reload(**_: object) -> None:
        raise UnloadFailed("version 2 serves, version 1 is removed at the next start")

    monkeypatch.setattr(server, "reload", reload)
    with pytest.raises(UnloadFailed):
        server._asked_to_reload(said.append)
    assert said == ["reloaded, but version 2 serves, version 1 is removed at the next start"]
