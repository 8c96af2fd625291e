"""A deployment served by Triton, and kept served.

    with Server(load_deployment(path)) as server:
        Client(server.grpc_url) ...

Entering checks the build, starts Triton and waits until every model is ready; leaving stops it and removes its processes, its
shared memory and its folder. `supervise` blocks and starts Triton again when it or one of its model processes dies.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from intaglio.card import CardMemory, read_card_memory
from intaglio.config import Deployment
from intaglio.errors import EngineMismatch, Unavailable
from intaglio.manifest import BuildManifest, read_manifest
from intaglio.memory import GIB, Prediction, check_memory
from intaglio.serving.installation import TritonInstallation, find_triton
from intaglio.serving.process import Endpoints, TritonProcess, TritonSettings, choose_ports
from intaglio.serving.workspace import Workspace
from intaglio.triton_layer import BUILD_VARIABLE

__all__ = ["Restarts", "Server", "TritonServer", "check_build"]

REPOSITORY: Final = "model_repository"
LOG_NAME: Final = "triton.log"
_WATCH_SECONDS: Final = 0.25
_PROBE_EVERY: Final = 5.0
_DEAF_SECONDS: Final = 60.0
"""A server that answers no liveness probe for so long hangs."""
_log = logging.getLogger(__name__)

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """How often `supervise` starts a failed server again: `most` times within `window` seconds, waiting longer each time."""

    most: int = 5
    window: float = 600.0
    first_delay: float = 1.0
    longest_delay: float = 30.0

    def delay(self, earlier: int) -> float:
        """Seconds to wait before the restart that follows `earlier` others."""
        return min(self.first_delay * 2.0**earlier, self.longest_delay)


class TritonServer:
    """Triton on a model repository."""

    def __init__(self, settings: TritonSettings, *, report: Report | None = None) -> None:
        self.settings = settings
        self._report = report or _log.debug
        self._stop = threading.Event()
        self._installation: TritonInstallation | None = None
        self._workspace: Workspace | None = None
        self._process: TritonProcess | None = None

    def check(self) -> None:
        """Whatever must hold before Triton starts; called at every start."""

    def __enter__(self) -> Self:
        """Raises ConfigError, MissingExtra, EngineMismatch or Unavailable, and then leaves nothing behind."""
        self._installation = find_triton()
        self._installation.check()
        self.check()
        self.settings = replace(self.settings, endpoints=choose_ports(self.settings.endpoints))
        self._workspace = Workspace.create()
        try:
            self._start()
        except BaseException:
            self.close(at_once=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def grpc_url(self) -> str:
        """`host:port` for gRPC clients."""
        return self.settings.endpoints.url("grpc")

    @property
    def http_url(self) -> str:
        """`host:port` for HTTP clients."""
        return self.settings.endpoints.url("http")

    @property
    def metrics_url(self) -> str:
        """`host:port` of the Prometheus metrics."""
        return self.settings.endpoints.url("metrics")

    @property
    def process(self) -> TritonProcess:
        """The running Triton; Unavailable where there is none."""
        if self._process is None:
            raise Unavailable("Triton is not running; use the server in a `with` statement")
        return self._process

    @property
    def workspace(self) -> Workspace:
        """What the server owns outside its processes; Unavailable where it is not running."""
        if self._workspace is None:
            raise Unavailable("Triton is not running; use the server in a `with` statement")
        return self._workspace

    @property
    def stopping(self) -> bool:
        """Whether `request_stop` was called."""
        return self._stop.is_set()

    def request_stop(self) -> None:
        """Let a start or `supervise` return soon; safe in a signal handler."""
        self._stop.set()

    def close(self, *, at_once: bool = False) -> None:
        """Stop Triton and give everything back; running requests are finished unless `at_once`."""
        if self._process is not None:
            self._process.stop(at_once=at_once)
        if self._workspace is not None:
            self._workspace.remove()
        self._process = self._workspace = None

    def kill(self) -> None:
        """End Triton at once, so that a `close` that waits for running requests waits no longer; safe in a signal handler."""
        if self._process is not None:
            self._process.kill()

    def supervise(self, restarts: Restarts | None = None) -> None:
        """Block until `request_stop`; on a failure stop all that is left of Triton and start it again.

        Raises:
            Unavailable: it failed more often than `restarts` allows.
            EngineMismatch: the build was replaced by one that cannot be served.
        """
        restarts = restarts or Restarts()
        times: list[float] = []
        while (reason := self._wait_for_failure()) is not None:
            while reason is not None:
                now = time.monotonic()
                times = [moment for moment in times if now - moment < restarts.window]
                self._end_process()
                if len(times) >= restarts.most:
                    raise Unavailable(f"{reason}; given up after {restarts.most} restarts")
                delay = restarts.delay(len(times))
                times.append(now)
                self._report(f"{reason}; restart {len(times)} of {restarts.most} in {delay:g} s")
                if self._stop.wait(delay):
                    return
                reason = self._start_again()

    def _start_again(self) -> str | None:
        """Why that failed, None where it did not."""
        try:
            self._start()
        except Unavailable as error:
            return str(error)
        return None

    def _start(self) -> None:
        assert self._installation is not None
        self.check()
        self._process = TritonProcess(self._installation, self.settings, self.workspace)
        if self._process.wait_ready(stopped=self._stop.is_set, report=self._report):
            self._report("ready")

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.stop(at_once=True)
        self.workspace.remove_segments()

    def _wait_for_failure(self) -> str | None:
        """What failed; None when asked to stop."""
        last_probe = last_answer = time.monotonic()
        while not self._stop.wait(_WATCH_SECONDS):
            if reason := self.process.failure():
                return reason
            now = time.monotonic()
            if now - last_probe >= _PROBE_EVERY:
                last_probe = now
                if self.process.is_live():
                    last_answer = now
                elif now - last_answer > _DEAF_SECONDS:
                    return f"Triton has answered no liveness probe for {_DEAF_SECONDS:g} s"
        return None


class Server(TritonServer):
    """Triton on the build of `deployment`."""

    def __init__(
        self, deployment: Deployment, *, endpoints: Endpoints | None = None, log: Path | None = None, report: Report | None = None
    ) -> None:
        server, folder = deployment.server, deployment.build_folder
        at = endpoints or Endpoints(
            host=server.host, http_port=server.http_port, grpc_port=server.grpc_port, metrics_port=server.metrics_port
        )
        self.deployment = deployment
        self._before: CardMemory | None = None
        self._prediction: Prediction | None = None
        settings = TritonSettings(
            repository=folder / REPOSITORY, endpoints=at, log=log or folder / LOG_NAME, environment={BUILD_VARIABLE: str(folder)}
        )
        super().__init__(settings, report=report)

    def check(self) -> None:
        """Raises EngineMismatch with the command that rebuilds, ConfigError where the card's memory will not do."""
        manifest = check_build(self.deployment)
        if self._prediction is None:  # a restart takes what the server before it had, which the driver may still count
            self._before = read_card_memory()
            self._prediction = check_memory(self.deployment, manifest)

    @property
    def memory_report(self) -> str:
        """What the running server takes beside what was predicted."""
        if self._prediction is None:
            raise Unavailable("Triton is not running; use the server in a `with` statement")
        predicted, card = f"predicted {self._prediction.summary}", read_card_memory()
        if self._prediction.place == "host" or card is None or self._before is None:
            return f"{sum(self.process.resident_bytes().values()) / GIB:.2f} GiB of the host; {predicted}"
        return f"{(card.used - self._before.used) / GIB:.2f} GiB of the card; {predicted}"


def check_build(deployment: Deployment) -> BuildManifest:
    """The build of `deployment`, if it is whole by the look of it; its processes check every byte when they open it.

    Raises:
        EngineMismatch: not built, built from another configuration, or files are missing or of another size.
    """
    folder = deployment.build_folder
    command = f"intaglio build {_shown(deployment.folder / f'{deployment.name}.yaml')}"
    manifest = read_manifest(folder, command=command)
    if manifest.config_digest != deployment.digest:
        raise EngineMismatch(f"{folder} was built from another configuration than {deployment.name}.yaml is now", command=command)
    engines = {name: digest for network in manifest.networks.values() for name, digest in network.files.items()}
    for name, digest in {**engines, **manifest.files}.items():
        path = folder / name
        if not path.is_file():
            raise EngineMismatch(f"{path} is missing", command=command)
        if path.stat().st_size != digest.size:
            raise EngineMismatch(f"{path} has {path.stat().st_size} bytes, not {digest.size}", command=command)
    if not (folder / REPOSITORY).is_dir():
        raise EngineMismatch(f"{folder / REPOSITORY} is missing", command=command)
    return manifest


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
