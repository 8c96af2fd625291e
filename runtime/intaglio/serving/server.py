"""A deployment served by Triton, and kept served.

    with Server(load_deployment(path)) as server:
        Client(server.grpc_url) ...

Entering checks the build, starts Triton and waits until every model is ready; leaving stops it and removes
its processes, its shared memory and its folder. `supervise` blocks and starts Triton again when it or one of
its model processes dies. `Server.reload` goes over to what was built since, while requests come in.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from intaglio.builds.holds import BuildHold
from intaglio.builds.manifest import BuildManifest, read_manifest
from intaglio.contract.config import Deployment, load_deployment
from intaglio.engines.card import CardMemory, read_card_memory
from intaglio.errors import ConfigError, EngineMismatch, Unavailable
from intaglio.serving.change import ChangeTimes, VersionChange
from intaglio.serving.control import Control
from intaglio.serving.installation import TritonInstallation, find_triton
from intaglio.serving.memory import GIB, Prediction, check_memory, check_memory_beside
from intaglio.serving.process import Endpoints, SecretShown, TritonProcess, TritonSettings, choose_ports
from intaglio.serving.versions import REPOSITORY, ServedRepository, ServedVersion, read_version
from intaglio.serving.workspace import Workspace
from intaglio.triton_models.served_build import BUILD_VARIABLE
from intaglio.whole_files import storage_problem

__all__ = ["REPOSITORY", "Reloaded", "Restarts", "Server", "TritonServer", "check_build"]

LOG_NAME: Final = "triton.log"
_WATCH_SECONDS: Final = 0.25
_PROBE_EVERY: Final = 5.0
_DEAF_SECONDS: Final = 60.0
"""A server that answers no liveness probe for so long hangs."""
_NOT_RELOADABLE: Final = "this kernel does not let Triton's secret be hidden, so the server was started without loading and unloading"
_log = logging.getLogger(__name__)

Report = Callable[[str], None]
_Owned = TypeVar("_Owned")


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """How often `supervise` starts a failed server again: `most` times within `window` seconds, waiting
    longer each time.
    """

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
        self._changing = threading.Lock()
        """Held while Triton starts or changes what it has loaded."""

    def check(self) -> None:
        """Whatever must hold before Triton starts; called at every start."""

    def prepare(self) -> None:
        """Whatever Triton reads from the workspace; called at every start, with nothing of Triton left."""

    def __enter__(self) -> Self:
        """Raises ConfigError, MissingExtra, EngineMismatch or Unavailable, and then leaves nothing behind."""
        self._installation = find_triton()
        self._installation.check()
        try:
            self.check()
            self.settings = replace(self.settings, endpoints=choose_ports(self.settings.endpoints))
            self._workspace = Workspace.create()
            self._start()
        except BaseException:
            self.close(at_once=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        return _running(self._process)

    @property
    def workspace(self) -> Workspace:
        """What the server owns outside its processes; Unavailable where it is not running."""
        return _running(self._workspace)

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
        self.release()
        if self._workspace is not None:
            self._workspace.remove()
        self._process = self._workspace = None

    def release(self) -> None:
        """Whatever `check` and `prepare` took; called once Triton has ended."""

    def kill(self) -> None:
        """End Triton at once, so that a `close` that waits for running requests waits no longer; safe in a
        signal handler.
        """
        if self._process is not None:
            self._process.kill()

    def supervise(self, restarts: Restarts | None = None) -> None:
        """Block until `request_stop`; on a failure stop all that is left of Triton and start it again.

        Raises:
            Unavailable: it failed more often than `restarts` allows.
            EngineMismatch: files of the build that is served are gone.
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
        with self._changing:
            self.check()
            self.prepare()
            try:
                ready = self._run(self._installation)
            except SecretShown as error:
                _log.warning("%s; Triton starts again, and nothing can be loaded into it", error)
                self._end_process()
                self.settings = replace(self.settings, reloadable=False)
                ready = self._run(self._installation)
            if ready:
                self._report("ready")

    def _run(self, installation: TritonInstallation) -> bool:
        """Whether Triton became ready before `request_stop`."""
        try:
            self._process = TritonProcess(installation, self.settings, self.workspace)
        except OSError as error:  # its log or its folder cannot be written: perhaps later
            raise Unavailable(
                f"Triton cannot be started: {error.filename or 'the process'}: {storage_problem(error)}"
            ) from error
        return self._process.wait_ready(stopped=self._stop.is_set, report=self._report)

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


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did."""

    before: ServedVersion
    now: ServedVersion
    times: ChangeTimes

    @property
    def summary(self) -> str:
        """For people."""
        load, switch = f"loaded in {self.times.load:.1f} s", f"switched in {self.times.switch:.2f} s"
        return f"{self.now.shown} serves: {load}, {switch}; {self.before.shown} unloaded in {self.times.unload:.1f} s"


class Server(TritonServer):
    """Triton on the build of `deployment`; a build that replaces it while it is served is taken up by
    `reload` alone.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        endpoints: Endpoints | None = None,
        log: Path | None = None,
        report: Report | None = None,
    ) -> None:
        server, folder = deployment.server, deployment.build_folder
        at = endpoints or Endpoints(
            host=server.host,
            http_port=server.http_port,
            grpc_port=server.grpc_port,
            metrics_port=server.metrics_port,
        )
        self.deployment = deployment
        self._before: CardMemory | None = None
        self._prediction: Prediction | None = None
        self._version: ServedVersion | None = None
        self._last_number = 0
        self._control: Control | None = None
        settings = TritonSettings(
            repository=folder / REPOSITORY,
            endpoints=at,
            log=log or folder / LOG_NAME,
            environment={BUILD_VARIABLE: str(folder)},
        )
        super().__init__(settings, report=report)

    def release(self) -> None:
        if self._control is not None:
            self._control.close()  # a reload ends with Triton
        if self._version is not None:
            self._version.hold.release()
        self._control = self._version = None

    def check(self) -> None:
        """Raises EngineMismatch with the command that rebuilds, ConfigError where the card's memory will not
        do.
        """
        if self._version is not None:
            _check_listed(
                self.deployment.build_folder, self._version.manifest, command=self._version.manifest.rebuild
            )
            return
        self._version = self._open_version(self.deployment)
        # Once: a restart takes what the server before it had, which the driver may still count.
        self._before, self._last_number = read_card_memory(), self._version.number
        self._prediction = check_memory(self.deployment, self._version.manifest)

    def prepare(self) -> None:
        """The repository holds exactly the version that was served last, even where Triton ended amid a
        reload.
        """
        if self._control is None:
            self._control = Control(
                self.workspace.folder, self.deployment.build_folder, self._asked_to_reload
            )
        self._repository.start_with(self.version)
        self.settings = replace(self.settings, repository=self._repository.folder)

    @property
    def version(self) -> ServedVersion:
        """What is served, and what a restart serves; Unavailable where the server is not running."""
        return _running(self._version)

    @property
    def _repository(self) -> ServedRepository:
        return ServedRepository(self.workspace.folder / REPOSITORY)

    def _open_version(self, deployment: Deployment) -> ServedVersion:
        """The build of `deployment`, held so that no later build removes its files."""
        folder, manifest = deployment.build_folder, check_build(deployment)
        hold = BuildHold(folder, manifest)
        try:
            _check_listed(
                folder, manifest, command=manifest.rebuild
            )  # a build that ended just now removed what was not held yet
            return read_version(folder, manifest, number=self._last_number + 1, hold=hold)
        except BaseException:
            hold.release()
            raise

    def reload(self, *, report: Report | None = None) -> Reloaded | None:
        """Serve what `intaglio build` made since, without a pause; None where that is served already.

        Raises:
            ConfigError: there is no room for both, or the change needs a restart. EngineMismatch: the build
                is not whole.
            Unavailable: the new version cannot be loaded, or the server is just starting. In every case the
                old one is served.
        """
        if not self._changing.acquire(blocking=False):
            raise Unavailable("the server is starting or reloading; try again when it is ready")
        try:
            if not self.settings.reloadable:
                raise Unavailable(f"{_NOT_RELOADABLE}; stop the server and start `intaglio serve` again")
            deployment = load_deployment(self.deployment.folder / f"{self.deployment.name}.yaml")
            if deployment.build_folder != self.deployment.build_folder:
                raise ConfigError(
                    f"{deployment.name} is built in {deployment.build_folder} now; start `intaglio serve` again"
                )
            old, new = self.version, self._open_version(deployment)
            if new.manifest.key == old.manifest.key:
                new.hold.release()
                return None
            return self._change(deployment, old, new, report or self._report)
        finally:
            self._changing.release()

    def _change(
        self, deployment: Deployment, old: ServedVersion, new: ServedVersion, report: Report
    ) -> Reloaded:
        def switched() -> None:
            self._version, self._prediction, self.deployment = new, prediction, deployment

        try:
            if new.configs != old.configs:
                changed = sorted(
                    name
                    for name in {*new.configs, *old.configs}
                    if new.configs.get(name) != old.configs.get(name)
                )
                raise ConfigError(
                    f"config.pbtxt of {', '.join(changed)} changed (server settings?); start `intaglio serve` again"
                )
            prediction = check_memory_beside(deployment, new.manifest, self._predicted)
            self._last_number = new.number  # one that fails is not used again
            times = VersionChange(self.process, self._repository, old, new, report).run(switched)
        finally:
            (old if self._version is new else new).hold.release()
        return Reloaded(old, new, times)

    def _asked_to_reload(self, report: Report) -> str:
        """Through the control socket."""
        try:
            done = self.reload(report=report)
        except Exception as error:
            self._report(f"not reloaded: {error}")
            if self._process is not None and self._process.failure() is None:
                self._report("ready")
            raise
        if done is None:
            return f"nothing new: {self.version.shown} serves"
        self._report(f"reloaded: {done.summary}")
        self._report("ready")
        return done.summary

    @property
    def _predicted(self) -> Prediction:
        return _running(self._prediction)

    @property
    def memory_report(self) -> str:
        """What the running server takes beside what was predicted."""
        predicted, card = f"predicted {self._predicted.summary}", read_card_memory()
        if self._predicted.place == "host" or card is None or self._before is None:
            return f"{sum(self.process.resident_bytes().values()) / GIB:.2f} GiB of the host; {predicted}"
        return f"{(card.used - self._before.used) / GIB:.2f} GiB of the card; {predicted}"


def _running(what: _Owned | None) -> _Owned:
    """What a running server has."""
    if what is None:
        raise Unavailable("Triton is not running; use the server in a `with` statement")
    return what


def check_build(deployment: Deployment) -> BuildManifest:
    """The build of `deployment`, if it is whole by the look of it; its processes check every byte when they
    open it.

    Raises:
        EngineMismatch: not built, built from another configuration, or files are missing or of another size.
    """
    folder, command = deployment.build_folder, _rebuild_command(deployment)
    manifest = read_manifest(folder, command=command)
    if manifest.config_digest != deployment.digest:
        raise EngineMismatch(
            f"{folder} was built from another configuration than {deployment.name}.yaml is now",
            command=command,
        )
    _check_listed(folder, manifest, command=command)
    if not (folder / REPOSITORY).is_dir():
        raise EngineMismatch(f"{folder / REPOSITORY} is missing", command=command)
    return manifest


def _check_listed(folder: Path, manifest: BuildManifest, *, command: str) -> None:
    engines = {
        name: digest for network in manifest.networks.values() for name, digest in network.files.items()
    }
    for name, digest in {**engines, **manifest.files}.items():
        path = folder / name
        if not path.is_file():
            raise EngineMismatch(f"{path} is missing", command=command)
        if path.stat().st_size != digest.size:
            raise EngineMismatch(
                f"{path} has {path.stat().st_size} bytes, not {digest.size}", command=command
            )


def _rebuild_command(deployment: Deployment) -> str:
    return f"intaglio build {_shown(deployment.folder / f'{deployment.name}.yaml')}"


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
