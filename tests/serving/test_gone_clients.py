"""Clients that go away while their picture is drawn: it is cancelled, and the next picture is right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from intaglio.serving.server import Server
from intaglio_client import Client, Progress, Tls

from ..client.certificates import Certificates
from ..terminals import Terminal, visible
from .test_metrics import metrics_of

pytestmark = pytest.mark.slow

SHORT: Any = {"steps": 3, "seed": 5, "pose": "waving-01"}
STREAM = """
import sys
from intaglio_client import Client, Progress, Tls

tls = Tls(ca=sys.argv[2], certificate=sys.argv[3], key=sys.argv[4]) if len(sys.argv) > 2 else None
most = {"steps": 150, "num_images": 4, "pose": "waving-01"}  # not over before anybody notices
for event in Client(sys.argv[1], tls=tls).stream("a person in a room", **most, slice_steps=1):
    if isinstance(event, Progress) and event.step:
        print("drawing", flush=True)
"""


class Counted:
    """What the server counted since this was made."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._before = metrics_of(server)

    def since(self) -> dict[str, float]:
        now = metrics_of(self._server)
        return {
            kind: now[name] - self._before[name]
            for kind in ("finished", "failed", "cancelled", "late")
            if (name := f"requests_{kind}_total")
        }

    def wait_for(self, wanted: dict[str, float], *, seconds: float = 30) -> None:
        """Wait until the server counted `wanted`, and nothing else."""
        wanted = {kind: wanted.get(kind, 0) for kind in ("finished", "failed", "cancelled", "late")}
        until = time.monotonic() + seconds
        while self.since() != wanted:
            assert time.monotonic() < until, f"{self.since()} in place of {wanted}"
            time.sleep(0.1)


def test_ctrl_c_in_a_terminal(server: Server, client: Client, tmp_path: Path) -> None:
    undisturbed = client.generate("a person in a room", **SHORT).data
    counted = Counted(server)
    command = [
        sys.executable,
        "-m",
        "intaglio",
        "generate",
        "a person in a room",
        "--steps",
        "150",
        "--n",
        "4",
    ]
    with Terminal([*command, "--url", server.grpc_url, "--preview"], folder=tmp_path) as terminal:
        terminal.wait_for("step 5 of 150")
        terminal.press("\x03")
        assert terminal.end() == 130
    assert list(visible(terminal.written))[-1] == "cancelled, also on the server"
    assert not list(tmp_path.iterdir()), "nothing is half-written"
    counted.wait_for({"cancelled": 1})
    assert client.generate("a person in a room", **SHORT).data == undisturbed


def streaming_process(*arguments: str | Path) -> subprocess.Popen[str]:
    """A process whose picture is being drawn."""
    words = [sys.executable, "-c", STREAM, *map(str, arguments)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "drawing\n"
    return process


def test_a_client_that_is_killed(server: Server, client: Client) -> None:
    undisturbed = client.generate("a person in a room", **SHORT).data
    counted = Counted(server)
    process = streaming_process(server.grpc_url)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    counted.wait_for({"cancelled": 1})
    assert client.generate("a person in a room", **SHORT).data == undisturbed


def test_a_client_that_freezes(secured: Server, ours: Tls, made: Certificates) -> None:
    """It reads nothing and answers no ping, and its connection stays open."""
    with Client(secured.grpc_url, tls=ours) as client:
        undisturbed = client.generate("a person in a room", **SHORT).data
        counted = Counted(secured)
        files = [made.file(name) for name in ("ca.pem", "client.pem", "client.key")]
        process = streaming_process(secured.grpc_url, *files)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            counted.wait_for({"cancelled": 1})
            assert client.generate("a person in a room", **SHORT).data == undisturbed
        finally:
            process.kill()
            process.communicate()


def test_a_client_that_reads_no_further(server: Server, client: Client) -> None:
    """It is there and could still read, so its picture is drawn; it holds up nobody."""
    undisturbed = client.generate("a person in a room", **SHORT).data
    counted = Counted(server)
    with client.stream("a person in a room", steps=20, slice_steps=1, preview=256) as idle:
        assert isinstance(next(idle), Progress)
        counted.wait_for({"finished": 1})
        assert client.generate("a person in a room", **SHORT).data == undisturbed
        assert idle.result()[0].data
    counted.wait_for({"finished": 2})


def test_the_command_shows_its_certificate(secured: Server, made: Certificates, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "intaglio", "generate", "a person in a room", "--steps", "2", "-q"]
    files = [f"--tls-{name}" for name in ("ca", "cert", "key")]
    names = ("ca.pem", "client.pem", "client.key")
    tls = [
        word for pair in zip(files, [str(made.file(name)) for name in names], strict=True) for word in pair
    ]
    for options, code in (tls, 0), (tls[:2], 75):
        out = ["--out", f"{code}.png", "--url", secured.grpc_url, "--deadline", "30"]
        done = subprocess.run(
            [*command, *out, *options], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["0.png"]
