"""One run of Triton: started in a process group of its own, asked whether it is ready, watched, stopped.

Nothing here restarts anything; `server` does.

The secret that opens Triton's administration is new at every start and reaches Triton through its command
line, the only way it has. Every user of this machine can read that until Triton has parsed it, which its
first line of log tells; then stars take the secret's place, before a port of it is open. Who read it in
between can use it while this Triton runs. Of a server that is not `reloadable`, for a kernel that does not
let it be hidden, it stays readable: it loads and unloads nothing there, but opens shared memory, log and
trace settings.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import psutil

from intaglio.errors import ConfigError, Unavailable, single_line
from intaglio.serving import launch
from intaglio.serving.installation import TritonInstallation
from intaglio.serving.workspace import Workspace

__all__ = [
    "Endpoints",
    "SecretShown",
    "TritonProcess",
    "TritonSettings",
    "choose_ports",
    "gpu_present",
    "triton_arguments",
]

_RESTRICTED: Final = "model-repository,shared-memory,logging,trace"
"""Protocols of an administrator; 2.51 cannot switch shared memory off otherwise."""
_HEADER: Final = "intaglio-admin"
_KNOWN_OPTIONS: Final = {
    "--allow-client-shm": "false",
    "--grpc-max-response-pool-size": "64",
    "--allow-sagemaker": "false",
    "--allow-vertex-ai": "false",
}
"""Given where `tritonserver --help` knows them: they came later, or a server may be built without them."""
_PING_MS: Final = 10_000
"""Keepalive pings of waiting clients that are welcome; gRPC's default is one in five minutes."""
_ALLOCATOR: Final = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
"""glibc keeps up to 64 MiB an arena for what comes next: given back, the pages of each picture's copies are
cleared anew every time. Left alone it makes eight arenas a core.
"""
_POLL_SECONDS: Final = 0.05
_ENDING_SECONDS: Final = 0.5
_STUB_NAME: Final = "triton_python_backend_stub"
_PARSED = re.compile(rb"^[IWE]\d{4} \d\d:", re.MULTILINE)
"""Triton's own log, which it opens as its options say: it has read all of them by then."""
_LOADED = re.compile(rb"successfully loaded '([^']+)'")
_FAILED = re.compile(
    r"TritonModelException: (?P<raised>.+)|failed to load '(?P<model>[^']+)' version \d+: (?P<reason>.+)"
)
_LOG_LIMIT: Final = 16 * 1024 * 1024
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where Triton listens; a port of 0 is any free one, which `choose_ports` picks."""

    host: str = "127.0.0.1"
    http_port: int = 0
    grpc_port: int = 0
    metrics_port: int = 0

    @property
    def ports(self) -> dict[str, int]:
        """Port by what it is for."""
        return {"http": self.http_port, "grpc": self.grpc_port, "metrics": self.metrics_port}

    @property
    def reachable_host(self) -> str:
        """The host as a client on this machine names it."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "") else self.host

    def url(self, protocol: str) -> str:
        """`host:port` of `http`, `grpc` or `metrics`."""
        return f"{self.reachable_host}:{self.ports[protocol]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonSettings:
    """What to serve, where, and how long to wait."""

    repository: Path
    endpoints: Endpoints
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the server's environment."""
    load_seconds: float = 900.0
    """Longest a start may take: a TensorRT deployment reads gigabytes of plans."""
    drain_seconds: int = 30
    """Longest that running requests may take once the server is told to stop."""
    reloadable: bool = True
    """Whether models can be loaded and unloaded, by whoever knows the administrator's secret."""


class SecretShown(Unavailable):
    """The kernel lets nobody take the administrator's secret out of Triton's command line."""


def choose_ports(endpoints: Endpoints) -> Endpoints:
    """`endpoints` with ports that nobody listens on at this moment in the place of zeros.

    Raises:
        ConfigError: another process listens on one of the ports, two are the same, or the host is not this
            machine's.
    """
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        for name, port in endpoints.ports.items():
            bound = stack.enter_context(
                socket.socket()
            )  # held until the last is bound, so that free ones differ
            if port:  # a server that ended just now is not in the way
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                bound.bind((endpoints.host, port))
            except OSError as error:
                raise ConfigError(
                    f"{name} port {endpoints.host}:{port}: {error.strerror}; give a free one with --{name}-port (0 picks one)"
                ) from error
            found = bound.getsockname()[1]
            if found in chosen.values():
                raise ConfigError(f"{name} port {port} is another's too; give each its own (0 picks one)")
            chosen[name] = found
    return replace(
        endpoints, http_port=chosen["http"], grpc_port=chosen["grpc"], metrics_port=chosen["metrics"]
    )


def gpu_present() -> bool:
    """Whether an NVIDIA device node is here."""
    return Path("/dev/nvidiactl").exists()


def triton_arguments(
    settings: TritonSettings, *, secret: str, shared_memory_prefix: str, backends: Path | None, options: str
) -> list[str]:
    """Command line after the binary: nothing is left to a default that could open or change something.

    `secret` opens the administrator's protocols; `options` is the text of `tritonserver --help`.
    """
    at = settings.endpoints
    arguments = {
        "--model-repository": settings.repository,
        **(
            {"--model-control-mode": "explicit", "--load-model": "*"}
            if settings.reloadable
            else {"--model-control-mode": "none"}
        ),
        "--exit-on-error": "true",
        # It answers nobody before every model is loaded. Strict, it would not be ready while a version is
        # loaded beside another, and never again after one that could not be.
        "--strict-readiness": "false",
        "--exit-timeout-secs": settings.drain_seconds,
        "--http-address": at.host,
        "--http-port": at.http_port,
        "--http-restricted-api": f"{_RESTRICTED}:{_HEADER}={secret}",
        "--grpc-address": at.host,
        "--grpc-port": at.grpc_port,
        "--grpc-restricted-protocol": f"{_RESTRICTED}:{_HEADER}={secret}",
        "--grpc-http2-min-recv-ping-interval-without-data": _PING_MS,
        "--metrics-address": at.host,
        "--metrics-port": at.metrics_port,
        "--allow-gpu-metrics": str(gpu_present()).lower(),
        "--backend-config": f"python,shm-region-prefix-name={shared_memory_prefix}",
    }
    if backends is not None:
        arguments["--backend-directory"] = backends
    arguments |= {name: value for name, value in _KNOWN_OPTIONS.items() if name in options}
    return ["--disable-auto-complete-config", *(f"{name}={value}" for name, value in arguments.items())]


class TritonProcess:
    """A started server; `stop` must be called, whatever happened."""

    def __init__(
        self, installation: TritonInstallation, settings: TritonSettings, workspace: Workspace
    ) -> None:
        self.settings = settings
        self._workspace = workspace
        self._stubs: dict[str, psutil.Process] = {}
        self._secret = secrets.token_hex(16)
        arguments = triton_arguments(
            settings,
            secret=self._secret,
            shared_memory_prefix=workspace.shared_memory_prefix,
            backends=installation.make_backend_folder(workspace.folder),
            options=installation.options,
        )
        settings.log.parent.mkdir(parents=True, exist_ok=True)
        if settings.log.exists() and settings.log.stat().st_size > _LOG_LIMIT:
            settings.log.replace(settings.log.with_name(settings.log.name + ".1"))
        with settings.log.open("ab") as log:
            self._log_start = log.tell()
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    launch.__file__,
                    str(os.getpid()),
                    os.fspath(installation.binary),
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_ALLOCATOR | installation.environment() | dict(settings.environment),
                cwd=workspace.folder,
                start_new_session=True,  # Ctrl-C is for us; Triton is told to stop
            )

    @property
    def pid(self) -> int:
        """Of `tritonserver`."""
        return self._process.pid

    @property
    def stubs(self) -> dict[str, psutil.Process]:
        """Model instance name -> its Python process, as they were when the server became ready or began to
        serve another version.
        """
        return dict(self._stubs)

    def watch(self, version: int) -> None:
        """From now on the processes of `version` are those whose end is a failure; one that is missing
        already will be found to be.
        """
        found = {stub.instance: stub.process for stub in _stubs_of(self.pid) if stub.version == version}
        self._stubs = self._stubs | found

    def has_loaded(self, version: int, models: Collection[str]) -> bool:
        """Whether `version` of any of `models` is loaded, or still finishes its requests.

        Raises:
            Unavailable: Triton does not answer.
        """
        index: list[dict[str, str]] = json.loads(self._administer("index"))
        return any(
            item["name"] in models
            and item.get("version") == str(version)
            and item.get("state") != "UNAVAILABLE"
            for item in index
        )

    def load_model(self, model: str) -> None:
        """Make what is loaded of `model` what the repository says; returns when it is. What was loaded stays
        where that fails.

        Raises:
            Unavailable: it could not be loaded, with the reason; or Triton does not answer.
        """
        self._administer(f"models/{model}/load")

    def _administer(self, what: str) -> bytes:
        url = f"http://{self.settings.endpoints.url('http')}/v2/repository/{what}"
        request = urllib.request.Request(url, data=b"{}", headers={_HEADER: self._secret}, method="POST")
        try:
            with _OPENER.open(request, timeout=self.settings.load_seconds) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace")
            with contextlib.suppress(ValueError, KeyError, TypeError):
                said = json.loads(said)["error"]
            raised = _FAILED.search(said)
            raise Unavailable(
                single_line(raised["raised"] if raised and raised["raised"] else said)
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"Triton does not answer: {error}") from error

    def wait_ready(self, *, stopped: Callable[[], bool], report: Callable[[str], None]) -> bool:
        """Wait until every model is loaded; False when `stopped()` became true first. `report` gets a line
        now and then.

        Raises:
            SecretShown: of a reloadable server. Unavailable: Triton ended, or was not ready in time; the
                message holds the reason
                that its log gives.
        """
        started, shown = time.monotonic(), self.settings.reloadable
        while not stopped():
            if (code := self._process.poll()) is not None:
                raise Unavailable(
                    f"Triton did not start: {self.log_reason() or f'exit code {code}'}; log: {self.settings.log}"
                )
            log, ready = self._log_bytes(), self._answers("v2/health/ready")
            if shown and (ready or _PARSED.search(log)):
                self._hide_secret()
                shown = False
            if ready:
                self._stubs = {stub.instance: stub.process for stub in _stubs_of(self.pid)}
                return True
            seconds = time.monotonic() - started
            if seconds > self.settings.load_seconds:
                raise Unavailable(
                    f"Triton was not ready after {self.settings.load_seconds:g} s; log: {self.settings.log}"
                )
            loaded = [name.decode() for name in dict.fromkeys(_LOADED.findall(log))]
            report(f"starting Triton, {seconds:.0f} s; loaded: {', '.join(loaded) or 'nothing yet'}")
            time.sleep(_POLL_SECONDS)
        return False

    def failure(self) -> str | None:
        """What died: the server itself or one of its model processes; None while all of them run."""
        if (code := self._process.poll()) is not None:
            return f"Triton ended ({_exit_text(code)})"
        dead = [name for name, process in self._stubs.items() if not _is_alive(process)]
        return f"the process of {', '.join(sorted(dead))} died" if dead else None

    def is_live(self) -> bool:
        """Whether the server answers its liveness probe within two seconds."""
        return self._answers("v2/health/live", timeout=2.0)

    def resident_bytes(self) -> dict[str, int]:
        """Resident memory of the server (`tritonserver`) and of every model process."""
        processes = {"tritonserver": psutil.Process(self.pid), **self._stubs}
        return {name: process.memory_info().rss for name, process in processes.items() if _is_alive(process)}

    def stop(self, *, at_once: bool = False) -> None:
        """End the whole process group: first politely unless `at_once`, then by force. Returns when nobody is
        left.
        """
        group = [*self._stubs.values(), *(stub.process for stub in _stubs_of(self.pid))]
        if self._process.poll() is None and not at_once and self.failure() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.settings.drain_seconds + 5)
        self.kill()
        self._process.wait()
        for process in group:  # a stub's own group is Triton's, unless it left it
            with contextlib.suppress(psutil.Error):
                process.kill()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(_is_alive(process) for process in group):
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def log_reason(self) -> str | None:
        """Why loading failed, from this run's part of the log."""
        text = self._log_bytes().decode("utf-8", "replace")
        found = list(_FAILED.finditer(text))
        raised = [match["raised"] for match in found if match["raised"]]
        if raised:
            return single_line(raised[0])
        if found:
            return single_line(f"{found[0]['model']}: {found[0]['reason']}")
        errors = [line for line in text.splitlines() if re.match(r"E\d{4} |error:", line)]
        return single_line(errors[-1].partition("] ")[2] or errors[-1]) if errors else None

    def _hide_secret(self) -> None:
        """Triton has read its command line, which every user of this machine may read too: stars take the
        secret's place there.
        """
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            begin, end = int(fields[45]), int(fields[46])  # arg_start, arg_end of proc(5)
            with Path(f"/proc/{self.pid}/mem").open("r+b", buffering=0) as memory:
                memory.seek(begin)
                line = memory.read(end - begin)
                memory.seek(begin)
                memory.write(line.replace(self._secret.encode(), b"*" * len(self._secret)))
            if self._secret.encode() in Path(f"/proc/{self.pid}/cmdline").read_bytes():
                raise OSError(errno.EIO, "it was not written")
        except (OSError, ValueError, OverflowError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDING_SECONDS)
                return  # Triton was ending, and `wait_ready` says why
            raise SecretShown(
                f"the administrator's secret stays in Triton's command line: {error}"
            ) from error

    def _answers(self, path: str, *, timeout: float = 1.0) -> bool:
        return _http_ok(f"http://{self.settings.endpoints.url('http')}/{path}", timeout=timeout)

    def _log_bytes(self) -> bytes:
        with self.settings.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read()


_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Loopback never goes through a proxy."""


def _http_ok(url: str, *, timeout: float) -> bool:
    try:
        with _OPENER.open(url, timeout=timeout) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class _Stub:
    """The Python process of one model instance."""

    instance: str
    version: int
    process: psutil.Process


def _stubs_of(pid: int) -> list[_Stub]:
    """Those below `pid`."""
    found: list[_Stub] = []
    try:
        children: Sequence[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return found
    for child in children:
        with contextlib.suppress(psutil.Error):
            command = child.cmdline()
            if command and command[0].endswith(_STUB_NAME):
                # stub .../MODEL/VERSION/model.py segment size growth parent-pid backend-folder offset
                # INSTANCE runtime-folder
                version = Path(command[1]).parent.name if len(command) > 1 else ""
                found.append(
                    _Stub(
                        command[-2] if len(command) > 3 else str(child.pid),
                        int(version) if version.isdigit() else 0,
                        child,
                    )
                )
    return found


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _exit_text(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
