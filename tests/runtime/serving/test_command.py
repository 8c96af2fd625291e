"""`intaglio serve` and `intaglio reload`, without Triton."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from intaglio.cli import main
from intaglio.contract.config import load_deployment
from intaglio.errors import Unavailable
from intaglio.serving import command
from intaglio.serving.control import Control, ControlledServer, controlled_servers
from intaglio.serving.server import Server
from intaglio.serving.workspace import Workspace

from .conftest import PLATE


def test_every_server_of_a_deployment_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(_: Any) -> str:
        raise Unavailable("it is just starting")

    config = tmp_path / "plate.yaml"
    config.write_text(PLATE)
    build = load_deployment(config).build_folder
    servers = sorted((Workspace.create() for _ in range(2)), key=lambda workspace: workspace.folder)
    controls = [
        Control(server.folder, build, answer, grpc_url="127.0.0.1:1")
        for server, answer in zip(servers, (refuse, lambda _: "reloaded"), strict=True)
    ]
    try:
        assert controlled_servers(build) == [
            ControlledServer(server.folder, "127.0.0.1:1") for server in servers
        ]
        assert main(["reload", str(config)]) == 75
        said = capsys.readouterr()
        assert said.err.strip() == f"intaglio reload: {servers[0].folder.name}: it is just starting"
        assert said.out.strip() == f"{servers[1].folder.name}: reloaded"
    finally:
        for control, server in zip(controls, servers, strict=True):
            control.close()
            server.remove()


@pytest.mark.parametrize("host", ["", "::1", "狐" * 70])
def test_a_host_is_checked_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    config = tmp_path / "plate.yaml"
    config.write_text(PLATE)
    assert main(["serve", str(config), "--host", host]) == 2
    assert capsys.readouterr().err.startswith(f"intaglio serve: host: {host!r} is no host; allowed: an IPv4")
    for option in ("metrics-host", "http-host"):
        assert main(["serve", str(config), f"--{option}", host]) == 2
        assert capsys.readouterr().err.startswith(f"intaglio serve: {option}: {host!r} is no host; allowed:")


@pytest.mark.parametrize("ignored", [False, True])
def test_a_hang_up_stops_it_unless_nohup_was_used(tmp_path: Path, ignored: bool) -> None:
    config = tmp_path / "plate.yaml"
    config.write_text(PLATE)
    server = Server(load_deployment(config))
    at_start = signal.SIG_IGN if ignored else signal.SIG_DFL
    before = signal.signal(signal.SIGHUP, at_start)
    try:
        with command._stop_on_signals(server):
            os.kill(os.getpid(), signal.SIGHUP)
            assert server.stopping is not ignored
            os.kill(os.getpid(), signal.SIGTERM)
            assert server.stopping
        assert signal.getsignal(signal.SIGHUP) == at_start
    finally:
        signal.signal(signal.SIGHUP, before)
