"""Triton on a model repository, and kept running: `supervise` restarts it when one of its processes dies."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from intaglio.errors import Unavailable
from intaglio.serving.arguments import TritonSettings
from intaglio.serving.endpoints import Endpoints, choose_ports, ports_are_free
from intaglio.serving.installation import TritonInstallation, find_triton
from intaglio.serving.process import TritonProcess
from intaglio.serving.production import check_triton
from intaglio.serving.secret import SecretShown
from intaglio.serving.server_tls import Validity
from intaglio.serving.stop_request import StopRequest
from intaglio.serving.workspace import Workspace
from intaglio.triton_models.certificate_metric import EXPIRES_VARIABLE
from intaglio.whole_files import storage_problem

__all__ = ["Report", "Restarts", "TritonServer", "running"]

_WATCH_SECONDS: Final = 0.25
_PROBE_EVERY: Final = 5.0
_DEAF_SECONDS: Final = 60.0
"""A server that has answered no liveness probe for so long hangs."""
_TELL_EVERY: Final = 86_400.0
"""Between two warnings of a certificate that expires soon."""
_PORT_CHOICES: Final = 3
"""Starts of a server whose ports other processes take meanwhile."""
_log = logging.getLogger(__name__)

Report = Callable[[str], None]
_Owned = TypeVar("_Owned")


def running(what: _Owned | None) -> _Owned:
    """What only a running server has; Unavailable where it is None."""
    if what is None:
        raise Unavailable("Triton is not running; use the server in a `with` statement")
    return what


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """How often `supervise` restarts a failed server: `most` times within `window` seconds, with a longer
    delay each time.
    """

    most: int = 5
    window: float = 600.0
    first_delay: float = 1.0
    longest_delay: float = 30.0

    def delay(self, earlier: int) -> float:
        """Seconds before the restart that follows `earlier` others."""
        return min(self.first_delay * 2.0**earlier, self.longest_delay)


class TritonServer:
    """Triton on a model repository, from `__enter__` to `__exit__`."""

    def __init__(self, settings: TritonSettings, *, report: Report | None = None) -> None:
        self.settings = settings
        self._report = report or _log.debug
        self._stop = StopRequest()
        self._installation: TritonInstallation | None = None
        self._workspace: Workspace | None = None
        self._process: TritonProcess | None = None
        self.stop_by = math.inf
        """When `close` no longer waits for requests, as `time.monotonic` has it."""
        self._validity: Validity | None = None
        """Of the files of TLS that Triton read."""
        self._changing = threading.Lock()
        """Held while Triton starts, or loads and unloads models."""

    def check(self) -> None:
        """Raise where Triton must not start; called at every start.

        Raises:
            ConfigError: a file of TLS is wrong, or a certificate has expired.
        """
        at = self.settings.endpoints
        if at.tls is None:
            return
        self._validity = at.tls.check(private=at.production)
        expires = {EXPIRES_VARIABLE: f"{self._validity.certificate:.0f}"}
        self.settings = replace(self.settings, environment={**self.settings.environment, **expires})
        self._tell_expiry()

    def _tell_expiry(self) -> None:
        """Warn of a certificate that expires soon."""
        if self._validity is not None and (soon := self._validity.warning):
            _log.warning("%s", soon)

    def prepare(self) -> None:
        """Write what Triton reads from the workspace; called at every start, while no Triton runs."""

    def __enter__(self) -> Self:
        """Start Triton and wait until every model is ready.

        Raises:
            ConfigError, MissingExtra, EngineMismatch, Unavailable: it cannot start; nothing is left behind.
        """
        self._installation = find_triton()
        self._installation.check()
        if self.settings.endpoints.production:
            check_triton(self._installation, self.settings.endpoints.hosts.values())
        try:
            self.check()
            self._workspace = Workspace.create()
            self._start_on(self.settings.endpoints)
        except BaseException:
            self.close(immediately=True)
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
        """The running Triton; Unavailable while there is none."""
        return running(self._process)

    @property
    def workspace(self) -> Workspace:
        """What the server owns outside its processes; Unavailable while it is not running."""
        return running(self._workspace)

    @property
    def log(self) -> Path:
        """The file that holds the output of the running Triton."""
        return self.process.log

    @property
    def stopping(self) -> bool:
        """Whether `request_stop` was called."""
        return self._stop.made

    def request_stop(self) -> None:
        """Have a start or `supervise` return soon; safe in a signal handler."""
        self._stop.make()

    def close(self, *, immediately: bool = False) -> None:
        """Stop Triton and remove what it used; running requests are finished unless `immediately`."""
        if self._process is not None:
            self._process.stop(immediately=immediately, by=self.stop_by)
        self.release()
        if self._workspace is not None:
            self._workspace.remove()
        self._process = self._workspace = None

    def release(self) -> None:
        """Give back what `check` and `prepare` took; called once Triton has ended."""

    def kill(self) -> None:
        """Kill Triton, so that a `close` that waits for requests returns; safe in a signal handler."""
        if self._process is not None:
            self._process.kill()

    def supervise(self, restarts: Restarts | None = None) -> None:
        """Block until `request_stop`; after a failure stop what is left of Triton and restart it.

        Raises:
            Unavailable: Triton failed more often than `restarts` allows.
            EngineMismatch: files of the served build are gone.
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

    def _start_on(self, asked: Endpoints) -> None:
        """Start on the ports that were asked for. Another process can take a port that was free before Triton
        opens it: then any other port takes the place of one that was not asked for.
        """
        for _ in range(_PORT_CHOICES - 1):
            self.settings = replace(self.settings, endpoints=choose_ports(asked))
            try:
                return self._start()
            except Unavailable as error:
                self._end_process()
                if ports_are_free(self.settings.endpoints):
                    raise
                _log.warning("%s", error)
        self.settings = replace(self.settings, endpoints=choose_ports(asked))
        return self._start()

    def _start_again(self) -> str | None:
        """Restart; why that failed, or None."""
        try:
            self._start()
        except Unavailable as error:
            return str(error)
        return None

    def _start(self) -> None:
        assert self._installation is not None
        with self._changing:
            self.check()
            with self._helpful_errors(str(self.workspace.folder)):
                self.workspace.tell_http(self.http_url)
                self.prepare()
            try:
                ready = self._run(self._installation)
            except SecretShown as error:
                _log.warning("%s; Triton restarts without loading and unloading of models", error)
                self._end_process()
                self.settings = replace(self.settings, reloadable=False)
                ready = self._run(self._installation)
            if ready:
                self._report("ready")

    def _run(self, installation: TritonInstallation) -> bool:
        """Whether Triton became ready before `request_stop`."""
        with self._helpful_errors("the process"):
            self._process = TritonProcess(installation, self.settings, self.workspace)
        return self._process.wait_ready(stopped=lambda: self._stop.made, report=self._report)

    @contextlib.contextmanager
    def _helpful_errors(self, otherwise: str) -> Iterator[None]:
        """Raises Unavailable where the log or the folder cannot be written now, which a restart may mend; it
        names the file, or `otherwise`.
        """
        try:
            yield
        except OSError as error:
            what = error.filename or otherwise
            cure = "; --log names another file" if what == str(self.settings.log) else ""
            raise Unavailable(f"Triton cannot be started: {what}: {storage_problem(error)}{cure}") from error

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.stop(immediately=True)
        self.workspace.remove_segments()

    def _wait_for_failure(self) -> str | None:
        """What failed; None when asked to stop."""
        last_probe = last_answer = last_told = time.monotonic()
        while not self._stop.wait(_WATCH_SECONDS):
            if reason := self.process.failure():
                return reason
            now = time.monotonic()
            if now - last_told >= _TELL_EVERY:
                last_told = now
                self._tell_expiry()
            if now - last_probe >= _PROBE_EVERY:
                last_probe = now
                if self.process.administration.is_live():
                    last_answer = now
                elif now - last_answer > _DEAF_SECONDS:
                    return f"Triton has answered no liveness probe for {_DEAF_SECONDS:g} s"
        return None
