"""A deployment served by Triton, and kept served.

    with Server(load_deployment(path)) as server:
        Client(server.grpc_url) ...

Entering checks the build, starts Triton and waits until every model is ready. Leaving stops it and removes
its processes, its shared memory and its folder. `supervise` blocks, and restarts Triton when it or one of its
model processes dies. `Server.reload` switches to what was built since, while requests come in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from intaglio.builds.file_checks import check_files
from intaglio.builds.holds import BuildHold
from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import Deployment, load_deployment
from intaglio.engines.card import CardMemory
from intaglio.errors import ConfigError, Unavailable
from intaglio.serving.arguments import TritonSettings
from intaglio.serving.build_check import check_build, check_card
from intaglio.serving.cards import read_memory_of, served_gpus
from intaglio.serving.change import ChangeTimes, UnloadFailed, VersionChange, remove_unloaded
from intaglio.serving.control import Control
from intaglio.serving.drain import Drain
from intaglio.serving.endpoints import Endpoints, configured_endpoints
from intaglio.serving.memory import GIB, Prediction
from intaglio.serving.memory_limits import check_memory, check_memory_beside
from intaglio.serving.triton_server import Report, TritonServer, running
from intaglio.serving.versions import REPOSITORY, ServedRepository, ServedVersion, read_version
from intaglio.telemetry.settings import TelemetrySettings
from intaglio.triton_models.served_build import BUILD_VARIABLE

__all__ = ["Reloaded", "Server"]

LOG_NAME: Final = "triton.log"
_log = logging.getLogger(__name__)
_NOT_RELOADABLE: Final = (
    "this kernel does not let Triton's secret be hidden, so the server cannot load and unload builds; "
    "restart `intaglio serve`"
)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload did."""

    before: ServedVersion
    now: ServedVersion
    times: ChangeTimes

    @property
    def summary(self) -> str:
        """For people."""
        times = self.times
        now = f"loaded in {times.load:.1f} s, switched in {times.switch:.2f} s"
        return f"{self.now.shown} serves: {now}; {self.before.shown} unloaded in {times.unload:.1f} s"


class Server(TritonServer):
    """Triton on the build of `deployment`. Only `reload` switches to a build that was made meanwhile."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        endpoints: Endpoints | None = None,
        log: Path | None = None,
        options: Sequence[str] = (),
        report: Report | None = None,
    ) -> None:
        folder = deployment.build_folder
        at = endpoints or configured_endpoints(deployment.server)
        self.deployment = deployment
        self._before: dict[int, CardMemory] = {}
        """Of each card before Triton started."""
        self._prediction: Prediction | None = None
        self._version: ServedVersion | None = None
        self._last_number = 0
        self._control: Control | None = None
        set_by = deployment.server
        telemetry = TelemetrySettings(format=set_by.log_format, level=set_by.log_level, traces=set_by.traces)
        settings = TritonSettings(
            repository=folder / REPOSITORY,
            endpoints=at,
            log=log or folder / LOG_NAME,
            environment={BUILD_VARIABLE: str(folder), **telemetry.environment},
            telemetry=telemetry,
            trace_every=set_by.trace_every,
            drain_seconds=deployment.server.drain_seconds,
            options=options,
        )
        super().__init__(settings, report=report)

    def release(self) -> None:
        if self._control is not None:
            self._control.close()  # a reload that is under way ends with Triton
        if self._version is not None:
            self._version.hold.release()
        self._control = self._version = None

    def check(self) -> None:
        """Raises EngineMismatch with the command that rebuilds, ConfigError where the memory is too small or
        a file of TLS is wrong.
        """
        super().check()
        if self._version is not None:
            self._check_whole(self._version.manifest)
            return
        self._version = self._open_version(self.deployment)
        check_card(self._version.manifest)
        # Only at the first start: the driver may still count the memory of a Triton that just ended.
        self._last_number = self._version.number
        self._prediction = check_memory(self.deployment, self._version.manifest)
        if self._prediction.place == "card":
            self._before = read_memory_of(served_gpus(self.deployment))

    def prepare(self) -> None:
        """Write a repository with exactly the version that was served last, also after a reload that Triton
        did not survive.
        """
        if self._control is None:
            folder, build = self.workspace.folder, self.deployment.build_folder
            self._control = Control(folder, build, self._asked_to_reload, grpc_url=self.grpc_url)
        else:
            self._control.move(self.grpc_url)  # a port that another process took was chosen again
        self._repository.start_with(self.version)
        self.settings = replace(self.settings, repository=self._repository.folder)

    @property
    def version(self) -> ServedVersion:
        """What is served, and what a restart serves; Unavailable while the server is not running."""
        return running(self._version)

    @property
    def _repository(self) -> ServedRepository:
        return ServedRepository(self.workspace.folder / REPOSITORY)

    def _open_version(self, deployment: Deployment) -> ServedVersion:
        """The build of `deployment`, held so that no later build removes its files."""
        folder, manifest = deployment.build_folder, check_build(deployment)
        hold = BuildHold(folder, manifest)
        try:
            # A build that ended a moment ago may have removed files before they were held.
            self._check_whole(manifest)
            return read_version(folder, manifest, number=self._last_number + 1, hold=hold)
        except BaseException:
            hold.release()
            raise

    def _check_whole(self, manifest: BuildManifest) -> None:
        folder = self.deployment.build_folder
        check_files(folder, manifest.listed, command=manifest.rebuild, digest=None)

    def drain(self) -> None:
        """Refuse further requests of public models and let those that run or wait finish, for
        `server.drain_seconds` at most. What is not over then ends without its picture.

        To be called after `request_stop`. A reload that is under way is waited for.
        """
        self.stop_by = time.monotonic() + self.settings.drain_seconds
        if not self.settings.reloadable:
            self._report("Triton ends what runs: this kernel does not let the server load other models")
            return
        if not self._changing.acquire(timeout=self.settings.drain_seconds):
            self._report("a reload was under way for too long; what runs was ended")
            self.kill()
            return
        try:
            drain = Drain(self.process, self._repository, self.version, self._last_number + 1)
            if not drain.run(until=self.stop_by):
                self._report(f"{self.settings.drain_seconds} s are over; what still ran was ended")
                self.kill()
            # WAR: Triton 2.51 may wait for ever for a stream that it refused while it stopped.
            self.stop_by = time.monotonic()
        except Unavailable as error:
            _log.debug("nothing is left to wait for: %s", error)
        finally:
            self._changing.release()

    def reload(self, *, report: Report | None = None) -> Reloaded | None:
        """Switch to what `intaglio build` made since, without a pause; None where that is served already.

        Raises:
            ConfigError: the memory cannot hold both builds, or the change needs a restart.
            EngineMismatch: the build is not complete.
            LoadFailed: the new version cannot be loaded.
            UnloadFailed: the new version serves, but the old one is still loaded.
            Unavailable: the server is just starting or reloading; the same call may work later.
        After any error but UnloadFailed the old version is served.
        """
        if self.stopping:
            raise Unavailable("the server is stopping")
        if not self._changing.acquire(blocking=False):
            raise Unavailable("the server is starting or reloading; try again when it is ready")
        try:
            if not self.settings.reloadable:
                raise ConfigError(_NOT_RELOADABLE)
            deployment = load_deployment(self.deployment.folder / f"{self.deployment.name}.yaml")
            if deployment.build_folder != self.deployment.build_folder:
                folder = deployment.build_folder
                raise ConfigError(f"{deployment.name} is built in {folder} now; restart `intaglio serve`")
            _check_same_server(self.deployment, deployment)
            old, new = self.version, self._open_version(deployment)
            if new.manifest.key == old.manifest.key:
                new.hold.release()
                remove_unloaded(self.process, self._repository, old)
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
            _check_same_models(old, new)
            prediction = check_memory_beside(deployment, new.manifest, self._predicted)
            self._last_number = new.number  # a number that failed is not used again
            change = VersionChange(
                self.process, self._repository, old, new, report, stopping=lambda: self.stopping
            )
            times = change.run(switched)
        finally:
            (old if self._version is new else new).hold.release()
        return Reloaded(old, new, times)

    def _asked_to_reload(self, report: Report) -> str:
        """Answer a request of the control socket."""
        try:
            done = self.reload(report=report)
        except Exception as error:
            done_so_far = "reloaded, but" if isinstance(error, UnloadFailed) else "not reloaded:"
            self._report(f"{done_so_far} {error}")
            if self._process is not None and self._process.failure() is None and not self.stopping:
                self._report("ready")
            raise
        if done is None:
            return f"nothing new: {self.version.shown} serves"
        self._report(f"reloaded: {done.summary}")
        self._report("ready")
        return done.summary

    @property
    def _predicted(self) -> Prediction:
        return running(self._prediction)

    @property
    def memory_report(self) -> str:
        """What the running server takes, and what was predicted."""
        predicted = f"predicted {self._predicted.summary}"
        cards = read_memory_of(tuple(self._before))
        if not cards:
            resident = sum(self.process.resident_bytes().values())
            return f"{resident / GIB:.2f} GiB of the host; {predicted}"
        taken = [f"{(card.used - self._before[gpu].used) / GIB:.2f}" for gpu, card in cards.items()]
        of = "of the card" if len(taken) == 1 else "of each card"
        return f"{', '.join(taken)} GiB {of}; {predicted}"


def _check_same_server(old: Deployment, new: Deployment) -> None:
    """Triton reads the server's settings only when it starts.

    `old` is the configuration as it was at the start, without what the command line put in its place.
    """
    before, now = old.server.model_dump(), new.server.model_dump()
    changed = [f"server.{name} {before[name]} -> {now[name]}" for name in now if now[name] != before[name]]
    if changed:
        raise ConfigError(f"{', '.join(changed)}: needs a restart of `intaglio serve`; nothing was reloaded")


def _check_same_models(old: ServedVersion, new: ServedVersion) -> None:
    """A reload replaces the build behind the models, not their configuration."""
    names = sorted({*new.configs, *old.configs})
    changed = [name for name in names if new.configs.get(name) != old.configs.get(name)]
    if changed:
        raise ConfigError(f"config.pbtxt of {', '.join(changed)} changed; restart `intaglio serve`")
