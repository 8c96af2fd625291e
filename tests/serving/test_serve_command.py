"""`intaglio serve` as a user types it: where it listens, what it prints where, what it passes to Triton."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from intaglio.contract.config import Deployment
from intaglio_client import Client

from ..leavings import OwnServers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]
PORTS = ("--http-port=0", "--grpc-port=0", "--metrics-port=0")


def command(deployment: Deployment, *words: str) -> list[str]:
    config = deployment.folder / f"{deployment.name}.yaml"
    return [sys.executable, "-m", "intaglio", "serve", str(config), *PORTS, *words]


def test_addresses_are_json_on_stdout_and_options_reach_triton(miniature: Deployment, tmp_path: Path) -> None:
    log, traces = tmp_path / "triton.log", tmp_path / "traces.json"
    options = ["--host=127.0.0.2", f"--log={log}", "--json", "--"]
    passed = ["--log-verbose", "1", "--trace-config=level=TIMESTAMPS", "--trace-config=rate=1"]
    traced = f"--trace-config=triton,file={traces}"
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # where no other server runs
    servers = OwnServers(tmp_path)
    with (
        contextlib.closing(servers),
        subprocess.Popen(
            command(miniature, *options, *passed, traced),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            addresses = json.loads(process.stdout.readline())
            assert addresses["grpc"].startswith("127.0.0.2:")
            with Client(addresses["grpc"]) as client:
                client.generate("a person in a room", steps=1, seed=1)
            check = [sys.executable, "-m", "intaglio.serving.health"]
            done = subprocess.run(check, capture_output=True, text=True, env=environment, check=False)
            assert done.stdout == "ready\n", "whatever port it has"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            assert servers.names()
            assert servers.left() == set()
        finally:
            process.kill()
        assert process.stdout.read() == ""
        said = process.stderr.read().splitlines()
    assert said[-3:] == ["ready", "stopping; what runs may take 30 s, a second signal ends it", "stopped"]
    assert addresses["log"] == str(log)
    verbose = log.read_text()
    assert "HTTP request" in verbose or "Process for ModelInferHandler" in verbose
    assert "intaglio-admin=" not in verbose, "the administrator's secret is not in the log"
    assert json.loads(traces.read_text())


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--http-restricted-api=trace:a=b", "--http-restricted-api is refused: it would open"),
        ("--log-verbos=1", "did you mean --log-verbose?"),
    ],
)
def test_a_refused_option_starts_nothing(miniature: Deployment, option: str, says: str) -> None:
    done = subprocess.run(
        command(miniature, "--", option), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
