"""The real Triton on a trivial model: strings, readiness, failures, and nothing left behind."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton

from intaglio.errors import ConfigError, Unavailable
from intaglio.serving import log_file, secret, triton_server
from intaglio.serving.arguments import TritonSettings
from intaglio.serving.endpoints import Endpoints, choose_ports
from intaglio.serving.server_tls import ServerTls
from intaglio.serving.triton_server import Restarts, TritonServer
from intaglio.serving.workspace import sweep

from ..client.certificates import Certificates
from .conftest import ECHO

pytestmark = pytest.mark.usefixtures("nothing_left")
Settings = Callable[..., TritonSettings]

LARGE = 80 << 20
"""Bytes of a message that a server must not keep: four of them are more than glibc keeps."""


def say(server: TritonServer, *words: str, timeout: float = 10.0) -> list[str]:
    """What `echo` answers."""
    return ask(server.grpc_url, *words, timeout=timeout)


def ask(url: str, *words: str, timeout: float = 10.0) -> list[str]:
    """What `echo` answers at `url`."""
    with triton.InferenceServerClient(url) as client:
        tensor = triton.InferInput("words", [len(words)], "BYTES")
        tensor.set_data_from_numpy(np.array([word.encode() for word in words], np.object_))
        result = client.infer("echo", [tensor], client_timeout=timeout)
        return [value.decode() for value in result.as_numpy("said")]


def refused_calls(url: str, unknown: triton.InferInput) -> None:
    """Eight calls with an input that no model has: Triton reads all of it and asks no model."""
    with triton.InferenceServerClient(url) as client:
        for _ in range(8):
            with pytest.raises(triton.InferenceServerException, match="unexpected inference input"):
                client.infer("echo", [unknown], client_timeout=60)


def refused_streams(url: str, unknown: triton.InferInput) -> None:
    """Four streams of two such requests."""
    for _ in range(4):
        answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        with triton.InferenceServerClient(url) as client:
            client.start_stream(lambda result, error, answers=answers: answers.put(str(error or result)))
            for _ in range(2):
                client.async_stream_infer("echo", [unknown])
                assert "unexpected inference input" in answers.get(timeout=60)


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


@pytest.mark.parametrize("send", [refused_calls, refused_streams])
def test_no_message_is_kept_once_it_is_answered(
    triton_settings: Settings, send: Callable[[str, triton.InferInput], None]
) -> None:
    """By default Triton keeps the last eight requests of each of its threads, with all their bytes.

    The bound is what glibc may keep of freed memory in each of two arenas: 64 MiB, and a heap of 64 MiB of
    which a little is used. It does not grow with the size of the messages. Each case has a server of its own:
    what another left to glibc would hide growth.
    """
    unknown = triton.InferInput("unknown", [1], "BYTES")
    unknown.set_data_from_numpy(np.array([bytes(LARGE)], np.object_))
    with TritonServer(triton_settings()) as server:
        process = psutil.Process(server.process.pid)
        say(server, "a first request")
        before = process.memory_info().rss
        send(server.grpc_url, unknown)
        until = time.monotonic() + 10  # the last is freed after its answer
        while (grown := process.memory_info().rss - before) > 2 * (64 + 64) << 20:
            assert time.monotonic() < until, f"{grown >> 20} MiB"
            time.sleep(0.05)


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
        for headers in ({}, {"intaglio-admin": "private"}):
            request = urllib.request.Request(
                f"http://{echo.http_url}/{path}", data=b"{}", headers=headers, method="POST"
            )
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=5)
            assert refused.value.code == 403
    with triton.InferenceServerClient(echo.grpc_url) as client:
        for administer in (client.load_model, client.unload_model):
            with pytest.raises(triton.InferenceServerException, match="restricted"):
                administer("echo")
    processes = [psutil.Process(echo.process.pid), *echo.process.stubs.values()]
    restricted = [word for word in processes[0].cmdline() if "restricted" in word]
    assert [word.rpartition("=")[2] for word in restricted] == ["private"] * 2
    assert not [name for name in processes[1].environ() if "PRIVATE" in name], "models do not inherit it"
    assert echo.process.administration.has_loaded(1, ["echo"]), "the server itself may ask"
    assert say(echo, "still here")[0] == "still here"


@pytest.fixture
def noise() -> Iterator[None]:
    """Processes that keep every core busy."""
    count = 2 * (os.cpu_count() or 1)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    yield
    for process in busy:
        process.kill()
        process.wait()


@pytest.mark.long
@pytest.mark.usefixtures("noise")
def test_two_servers_that_start_together_know_themselves(triton_settings: Settings) -> None:
    """Ten times, with one log between them: each has its own secret and its own log, and no command line
    shows a secret at any time.
    """
    settings = triton_settings()
    shown: set[str] = set()

    def look(server: TritonServer, _: str) -> None:
        if server._process is not None:
            with contextlib.suppress(psutil.Error):
                command = " ".join(psutil.Process(server.process.pid).cmdline())
                shown.update(re.findall(r"intaglio-admin=\S*|[0-9a-f]{32}", command))

    def serve(number: int) -> Path:
        server = TritonServer(settings)
        server._report = functools.partial(look, server)
        barrier.wait()
        with server:
            barrier.wait()
            assert server.process.administration.has_loaded(1, ["echo"])
            assert say(server, str(number))[0] == str(number)
            log = server.log.read_text()
            assert f"--id={server.workspace.folder.name}" in psutil.Process(server.process.pid).cmdline()
            assert log.count(f"Started HTTPService at {server.http_url}") == 1
            return server.log

    for _ in range(10):
        barrier = threading.Barrier(2)
        with ThreadPoolExecutor(2) as pool:
            logs = set(pool.map(serve, range(2)))
        assert logs == {settings.log, settings.log.with_name("triton-2.log")}
    assert not shown


def test_a_secret_that_would_be_shown_opens_no_loading(
    triton_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(secret, "_point_at_variables", deny)
    with TritonServer(triton_settings()) as server:
        assert "--model-control-mode=none" in psutil.Process(server.process.pid).cmdline()
        assert say(server, "served all the same")[0] == "served all the same"
        with pytest.raises(Unavailable, match="not allowed"):
            server.process.administration.load_model("echo")


def test_triton_refuses_the_stand_ins(triton_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a secret that did not arrive is never one that somebody can read."""
    monkeypatch.setattr(secret, "_point_at_variables", lambda *_: None)
    with (
        pytest.raises(Unavailable, match="Triton did not start: exit code 1"),
        TritonServer(triton_settings()),
    ):
        pass


def test_a_server_outlives_the_thread_that_entered_it(triton_settings: Settings) -> None:
    server = TritonServer(triton_settings())
    entering = threading.Thread(target=server.__enter__)
    entering.start()
    entering.join()
    try:
        time.sleep(1)
        assert server.process.failure() is None
        assert say(server, "still here")[0] == "still here"
    finally:
        server.close()


def test_the_log_is_bounded_while_it_runs(triton_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    chatty = ECHO.replace(
        '        if words[0] == b"sleep":',
        """        if words[0] == b"talk":
            for number in range(4000):
                print("x" * 90, number, flush=True)
        if words[0] == b"sleep":""",
    )
    monkeypatch.setattr(log_file, "_LIMIT", 100_000)
    with TritonServer(triton_settings(chatty)) as server:
        assert say(server, "talk")[0] == "talk"
        older = server.log.with_name("triton.log.1")
        wait_until(lambda: " 3999\n" in older.read_text() + server.log.read_text())
        assert max(server.log.stat().st_size, older.stat().st_size) <= 100_000
        assert server.log.stat().st_size > 0


def test_a_disk_that_is_full_or_a_reader_that_stops_does_not_stop_triton(
    triton_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    chatty = ECHO.replace(
        '        if words[0] == b"sleep":',
        """        if words[0] == b"talk":
            for number in range(2000):
                print("x" * 400, number, flush=True)
        if words[0] == b"sleep":""",
    )
    held = threading.Event()
    held.set()
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        held.wait()
        raise OSError(errno.ENOSPC, "No space left on device")

    with TritonServer(triton_settings(chatty)) as server:
        monkeypatch.setattr(log_file.os, "write", full)
        assert say(server, "talk", "to a full disk")[0] == "talk to a full disk"
        held.clear()  # 800 kB fit in the pipe
        assert say(server, "talk", "to a stopped reader")[0] == "talk to a stopped reader"
        held.set()
        monkeypatch.setattr(log_file.os, "write", real)
        assert say(server, "talk", "again")[0] == "talk again"
        wait_until(lambda: "bytes of this log could not be written" in server.log.read_text())


def test_listens_on_loopback_only(echo: TritonServer) -> None:
    listening = [
        one
        for one in psutil.Process(echo.process.pid).net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    ]
    assert {one.laddr.ip.removeprefix("::ffff:") for one in listening} == {"127.0.0.1"}
    assert {one.laddr.port for one in listening} == set(echo.settings.endpoints.ports.values())


@pytest.mark.parametrize("asked", [False, True])
def test_a_port_that_is_lost_after_it_was_chosen(
    triton_settings: Settings, echo: TritonServer, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """Another port is chosen; one that was asked for is named. The other server's readiness is no answer."""
    ports = echo.settings.endpoints
    chosen: list[Endpoints] = []

    def choose(endpoints: Endpoints) -> Endpoints:
        chosen.append(ports if not chosen else choose_ports(endpoints))
        return chosen[-1]

    monkeypatch.setattr(triton_server, "choose_ports", choose)
    reports: list[str] = []
    server = TritonServer(
        replace(triton_settings(), endpoints=ports if asked else Endpoints()), report=reports.append
    )
    if asked:
        with pytest.raises(ConfigError, match=r"http port .* in use.*--http-port"), server:
            pass
    else:
        with server:
            assert server.http_url != echo.http_url
            assert say(server, "elsewhere")[0] == "elsewhere"
            assert reports.count("ready") == 1
    assert len(chosen) == 2 - asked
    assert say(echo, "undisturbed")[0] == "undisturbed"


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


def test_running_requests_are_finished_before_it_stops(triton_settings: Settings, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    said: list[str] = []
    with TritonServer(triton_settings()) as server:
        asking = threading.Thread(target=lambda: said.extend(say(server, "sleep", "1", str(begun))))
        asking.start()
        wait_until(begun.exists)
    asking.join()
    assert said[0] == f"sleep 1 {begun}"


@pytest.mark.parametrize("victim", ["stub", "server"])
def test_what_is_killed_comes_back(triton_settings: Settings, tmp_path: Path, victim: str) -> None:
    begun = tmp_path / "begun"
    reports: list[str] = []
    with TritonServer(triton_settings(), report=reports.append) as server:
        supervisor = threading.Thread(target=server.supervise, args=(Restarts(most=2, first_delay=0.1),))
        supervisor.start()
        try:
            first = server.process
            asking = threading.Thread(target=fail_to_say, args=(server, "sleep", "5", str(begun)))
            asking.start()
            wait_until(begun.exists)
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


def test_a_certificate_that_expires_soon_is_told_again_and_again(
    triton_settings: Settings,
    made: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once a day, and also after it has expired: a server runs for longer than a certificate may."""
    tls = ServerTls(certificate=made.file("server.pem"), key=made.file("server.key"))
    settings = replace(triton_settings(), endpoints=Endpoints(tls=tls))
    monkeypatch.setattr(triton_server, "_TELL_EVERY", 0.5)
    with TritonServer(settings) as server:
        supervisor = threading.Thread(target=server.supervise)
        supervisor.start()
        wait_until(lambda: caplog.text.count("expires in 2 days; replace it and restart") >= 3)
        assert server._validity is not None
        server._validity = replace(server._validity, first=time.time() - 1)
        wait_until(lambda: f"--tls-cert {tls.certificate} has expired, and no client connects" in caplog.text)
        server.request_stop()
        supervisor.join(20)


def test_a_process_that_ends_says_why(triton_settings: Settings) -> None:
    """In the report of the restart, and where there is no further one."""
    failing = ECHO.replace(
        '        if words[0] == b"sleep":',
        """        if words[0] == b"end":
            print("error: CUDA error: an illegal memory access", file=sys.stderr, flush=True)
            os._exit(1)
        if words[0] == b"sleep":""",
    )
    reports: list[str] = []
    with TritonServer(triton_settings(failing), report=reports.append) as server:
        raised: list[str] = []

        def supervise() -> None:
            try:
                server.supervise(Restarts(most=1, first_delay=0.1))
            except Unavailable as error:
                raised.append(str(error))

        supervisor = threading.Thread(target=supervise)
        supervisor.start()
        fail_to_say(server, "end")
        wait_until(lambda: reports.count("ready") == 2)
        fail_to_say(server, "end")
        supervisor.join()
    reason = "the process of echo_0_0 died; its log says: error: CUDA error: an illegal memory access"
    restarts = [line for line in reports if "restart" in line]
    assert restarts == [f"{reason}; restart 1 of 1 in 0.1 s"]
    assert raised == [f"{reason}; given up after 1 restarts"]


def test_gives_up_after_too_many_failures(triton_settings: Settings) -> None:
    with TritonServer(triton_settings()) as server:
        killer = threading.Timer(0.2, lambda: os.kill(server.process.pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(Unavailable, match=r"SIGKILL\); given up after 0 restarts"):
            server.supervise(Restarts(most=0))


def test_a_killed_owner_takes_triton_along(triton_settings: Settings, tmp_path: Path) -> None:
    """`kill -9` of the process that serves: Triton answers the requests that run and ends, though nobody
    reads its output. The next server removes what is left.
    """
    talking = ECHO.replace(
        "time.sleep(float(words[1]))",
        """time.sleep(float(words[1]))
            pb_utils.Logger.log_info("x" * 200_000)""",
    )
    script = textwrap.dedent(f"""
        import pickle, time
        from intaglio.serving.triton_server import TritonServer

        with TritonServer(pickle.loads({pickle.dumps(triton_settings(talking))!r})) as server:
            print(server.process.pid, server.grpc_url, flush=True)
            time.sleep(60)
    """)
    with (
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner,
        ThreadPoolExecutor(1) as pool,
    ):
        assert owner.stdout is not None
        pid, url = owner.stdout.readline().split()
        family = [psutil.Process(int(pid)), *psutil.Process(int(pid)).children()]
        begun = tmp_path / "begun"
        asking = pool.submit(ask, url, "sleep", "1", str(begun))
        wait_until(begun.exists)
        owner.kill()
        assert asking.result()[0] == f"sleep 1 {begun}"
    wait_until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family))
    assert sweep()
