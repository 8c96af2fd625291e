"""The real Triton on a trivial model: strings, readiness, failures, and nothing left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton

from intaglio.errors import ConfigError, Unavailable
from intaglio.serving.arguments import TritonSettings
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.triton_server import Restarts, TritonServer
from intaglio.serving.workspace import sweep

from .conftest import ECHO

pytestmark = pytest.mark.usefixtures("nothing_left")
Settings = Callable[..., TritonSettings]


def say(server: TritonServer, *words: str, timeout: float = 10.0) -> list[str]:
    """What `echo` answers."""
    with triton.InferenceServerClient(server.grpc_url) as client:
        tensor = triton.InferInput("words", [len(words)], "BYTES")
        tensor.set_data_from_numpy(np.array([word.encode() for word in words], np.object_))
        result = client.infer("echo", [tensor], client_timeout=timeout)
        return [value.decode() for value in result.as_numpy("said")]


def fail_to_say(server: TritonServer, *words: str) -> None:
    with pytest.raises(triton.InferenceServerException):
        say(server, *words)


def wait_until(condition: Callable[[], bool], *, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def echo(triton_settings: Settings) -> Iterator[TritonServer]:
    with TritonServer(triton_settings()) as server:
        yield server


def test_strings_pass_and_the_stub_uses_this_environment(echo: TritonServer) -> None:
    said, prefix, pid = say(echo, "grüße", "aus", "dem Stub")
    assert said == "grüße aus dem Stub"
    assert Path(prefix) == Path(sys.prefix)
    assert [process.pid for process in echo.process.stubs.values()] == [int(pid)]
    assert {"tritonserver", "echo_0_0"} <= set(echo.process.resident_bytes())
    assert echo.workspace.segments(), "its shared memory has this server's prefix"
    assert "successfully loaded 'echo'" in echo.settings.log.read_text()


def test_every_process_is_told_to_keep_freed_memory(echo: TritonServer) -> None:
    for process in (psutil.Process(echo.process.pid), *echo.process.stubs.values()):
        assert process.environ()["MALLOC_TRIM_THRESHOLD_"] == str(64 << 20)


def test_administration_is_closed(echo: TritonServer) -> None:
    """Loading and unloading too, over HTTP and gRPC; whoever reads Triton's command line does not learn what
    would open it.
    """
    models = "v2/repository/models/echo"
    for path in (
        "v2/repository/index",
        f"{models}/load",
        f"{models}/unload",
        "v2/systemsharedmemory/region/x/register",
    ):
        for secret in ({}, {"intaglio-admin": "*" * 32}):
            request = urllib.request.Request(
                f"http://{echo.http_url}/{path}", data=b"{}", headers=secret, method="POST"
            )
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=5)
            assert refused.value.code == 403
    with triton.InferenceServerClient(echo.grpc_url) as client:
        for administer in (client.load_model, client.unload_model):
            with pytest.raises(triton.InferenceServerException, match="restricted"):
                administer("echo")
    restricted = [word for word in psutil.Process(echo.process.pid).cmdline() if "restricted" in word]
    assert [word.rpartition("=")[2] for word in restricted] == ["*" * 32] * 2
    assert echo.process.administration.has_loaded(1, ["echo"]), "the server itself may ask"
    assert say(echo, "still here")[0] == "still here"


def test_the_secret_is_hidden_while_models_load(triton_settings: Settings) -> None:
    """As soon as Triton has parsed it; and what Triton took for it is not what is readable then."""
    slow = ECHO.replace(
        "    def execute", "    def initialize(self, args):\n        time.sleep(3)\n\n    def execute", 1
    )
    seen: list[tuple[float, str]] = []

    def look(_: str) -> None:
        if server._process is not None:
            words = [
                word
                for word in psutil.Process(server.process.pid).cmdline()
                if word.startswith("--http-restricted-api")
            ]
            seen.append((time.monotonic(), "".join(words).rpartition("=")[2]))

    server = TritonServer(triton_settings(slow), report=look)
    with server:
        ready = time.monotonic()
        assert server.process.administration.has_loaded(1, ["echo"])
    hidden = [moment for moment, value in seen if value == "*" * 32]
    assert ready - hidden[0] > 2


def test_a_secret_that_cannot_be_hidden_opens_no_loading(
    triton_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(path: Path, mode: str = "r", **options: Any) -> Any:
        if path.match("/proc/*/mem"):
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        return opened(path, mode, **options)

    opened = Path.open
    monkeypatch.setattr(Path, "open", deny)
    with TritonServer(triton_settings()) as server:
        assert "--model-control-mode=none" in psutil.Process(server.process.pid).cmdline()
        assert say(server, "served all the same")[0] == "served all the same"
        with pytest.raises(Unavailable, match="not allowed"):
            server.process.administration.load_model("echo")


def test_listens_on_loopback_only(echo: TritonServer) -> None:
    listening = [
        one
        for one in psutil.Process(echo.process.pid).net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    ]
    assert {one.laddr.ip.removeprefix("::ffff:") for one in listening} == {"127.0.0.1"}
    assert {one.laddr.port for one in listening} == set(echo.settings.endpoints.ports.values())


def test_a_port_in_use_is_named(echo: TritonServer) -> None:
    with pytest.raises(ConfigError, match=r"http port .* in use.*--http-port"), TritonServer(echo.settings):
        pass


@pytest.mark.parametrize(
    ("endpoints", "message"),
    [
        (Endpoints(http_port=18431, grpc_port=18431), "grpc port 18431 is another's too; give each its own"),
        (Endpoints(host="192.0.2.1"), r"http port 192\.0\.2\.1:0: Cannot assign requested address"),
        (Endpoints(host="no-such-host.invalid"), r"http port no-such-host\.invalid:0: .+"),
    ],
)
def test_addresses_that_cannot_be_listened_on(
    triton_settings: Settings, endpoints: Endpoints, message: str
) -> None:
    with (
        pytest.raises(ConfigError, match=message),
        TritonServer(replace(triton_settings(), endpoints=endpoints)),
    ):
        pass


def test_a_model_that_cannot_load_says_why(triton_settings: Settings) -> None:
    broken = (
        "class TritonPythonModel:\n    def initialize(self, args):\n        raise ValueError('no plan')\n"
    )
    with pytest.raises(Unavailable, match="no plan"), TritonServer(triton_settings(broken)):
        pass


def test_running_requests_are_finished_before_it_stops(triton_settings: Settings) -> None:
    said: list[str] = []
    with TritonServer(triton_settings()) as server:
        asking = threading.Thread(target=lambda: said.extend(say(server, "sleep", "1")))
        asking.start()
        time.sleep(0.4)
    asking.join()
    assert said[0] == "sleep 1"


@pytest.mark.parametrize("victim", ["stub", "server"])
def test_what_is_killed_comes_back(triton_settings: Settings, victim: str) -> None:
    reports: list[str] = []
    with TritonServer(triton_settings(), report=reports.append) as server:
        supervisor = threading.Thread(target=server.supervise, args=(Restarts(most=2, first_delay=0.1),))
        supervisor.start()
        try:
            first = server.process
            asking = threading.Thread(target=fail_to_say, args=(server, "sleep", "3"))
            asking.start()
            time.sleep(0.3)
            os.kill(next(iter(first.stubs.values())).pid if victim == "stub" else first.pid, signal.SIGKILL)
            wait_until(lambda: reports.count("ready") == 2)
            asking.join()
            assert server.process.pid != first.pid
            assert say(server, "again")[0] == "again"
            assert any("echo_0_0 died" in line if victim == "stub" else "SIGKILL" in line for line in reports)
        finally:
            server.request_stop()
            supervisor.join()
            server.close(immediately=True)


def test_gives_up_after_too_many_failures(triton_settings: Settings) -> None:
    with TritonServer(triton_settings()) as server:
        killer = threading.Timer(0.2, lambda: os.kill(server.process.pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(Unavailable, match=r"SIGKILL\); given up after 0 restarts"):
            server.supervise(Restarts(most=0))


def test_a_killed_owner_takes_triton_along(triton_settings: Settings) -> None:
    """`kill -9` of the process that serves: Triton ends by itself, the next server removes what is left."""
    script = textwrap.dedent(f"""
        import time
        from pathlib import PosixPath
        from intaglio.serving.endpoints import Endpoints
        from intaglio.serving.arguments import TritonSettings
        from intaglio.serving.triton_server import TritonServer

        with TritonServer({triton_settings()!r}) as server:
            print(server.process.pid, flush=True)
            time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        family = [psutil.Process(pid), *psutil.Process(pid).children()]
        owner.kill()
    wait_until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family))
    assert sweep()
