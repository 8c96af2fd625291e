"""One run of Triton: started in a process group of its own, watched, stopped. `triton_server` restarts it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

import psutil

from intaglio.errors import Unavailable
from intaglio.serving import launch
from intaglio.serving.administration import Administration
from intaglio.serving.arguments import ALLOCATOR, TritonSettings, triton_arguments
from intaglio.serving.installation import TritonInstallation
from intaglio.serving.secret import SecretShown, hide_secret, new_secret
from intaglio.serving.stubs import is_alive, stubs_of
from intaglio.serving.triton_log import TritonLog
from intaglio.serving.workspace import Workspace

__all__ = ["TritonProcess"]

_POLL_SECONDS: Final = 0.05
_ENDING_SECONDS: Final = 0.5
_KILLED_SECONDS: Final = 10.0


class TritonProcess:
    """A started server; `stop` must be called, whatever happened."""

    def __init__(
        self, installation: TritonInstallation, settings: TritonSettings, workspace: Workspace
    ) -> None:
        self.settings = settings
        self._stubs: dict[str, psutil.Process] = {}
        self._secret = new_secret()
        arguments = triton_arguments(
            settings,
            secret=self._secret,
            shared_memory_prefix=workspace.shared_memory_prefix,
            backends=installation.make_backend_folder(workspace.folder),
            options=installation.options,
        )
        self.administration = Administration(
            settings.endpoints.url("http"), secret=self._secret, load_seconds=settings.load_seconds
        )
        self._log = TritonLog(settings.log)
        program = os.fspath(installation.binary)
        with settings.log.open("ab") as log:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-I", launch.__file__, str(os.getpid()), program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=ALLOCATOR | installation.environment() | dict(settings.environment),
                cwd=workspace.folder,
                start_new_session=True,  # Ctrl-C is for us, and we tell Triton to stop
            )

    @property
    def pid(self) -> int:
        """Process id of `tritonserver`."""
        return self._process.pid

    @property
    def stubs(self) -> dict[str, psutil.Process]:
        """Model instance name -> its Python process, as it was when the server became ready or began to serve
        another version.
        """
        return dict(self._stubs)

    def watch(self, version: int) -> None:
        """From now on the end of a process of `version` is a failure, also of one that is missing already."""
        found = {stub.instance: stub.process for stub in stubs_of(self.pid) if stub.version == version}
        self._stubs = self._stubs | found

    def wait_ready(self, *, stopped: Callable[[], bool], report: Callable[[str], None]) -> bool:
        """Wait until every model is loaded; False when `stopped()` became true first.

        `report` gets a line of progress at every look.

        Raises:
            SecretShown: the secret of a reloadable server cannot be hidden.
            Unavailable: Triton ended or was not ready in time; the message holds the reason in its log.
        """
        started = time.monotonic()
        shown = self.settings.reloadable
        while not stopped():
            if (code := self._process.poll()) is not None:
                reason = self._log.failure() or f"exit code {code}"
                raise Unavailable(f"Triton did not start: {reason}; log: {self.settings.log}")
            ready = self.administration.is_ready()
            if shown and (ready or self._log.shows_parsed_options()):
                self._hide_secret()
                shown = False
            if ready:
                self._stubs = {stub.instance: stub.process for stub in stubs_of(self.pid)}
                return True
            seconds = time.monotonic() - started
            if seconds > self.settings.load_seconds:
                longest = f"{self.settings.load_seconds:g} s"
                raise Unavailable(f"Triton was not ready after {longest}; log: {self.settings.log}")
            loaded = ", ".join(self._log.loaded()) or "nothing yet"
            report(f"starting Triton, {seconds:.0f} s; loaded: {loaded}")
            time.sleep(_POLL_SECONDS)
        return False

    def _hide_secret(self) -> None:
        try:
            hide_secret(self.pid, self._secret)
        except SecretShown:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDING_SECONDS)
                return  # Triton was ending, and `wait_ready` says why
            raise

    def failure(self) -> str | None:
        """What died: the server itself or one of its model processes; None while all of them run."""
        if (code := self._process.poll()) is not None:
            return f"Triton ended ({_exit_text(code)})"
        dead = [name for name, process in self._stubs.items() if not is_alive(process)]
        return f"the process of {', '.join(sorted(dead))} died" if dead else None

    def resident_bytes(self) -> dict[str, int]:
        """Resident memory of the server (`tritonserver`) and of every model process."""
        processes = {"tritonserver": psutil.Process(self.pid), **self._stubs}
        return {name: process.memory_info().rss for name, process in processes.items() if is_alive(process)}

    def stop(self, *, immediately: bool = False) -> None:
        """End the whole process group; returns when no process is left.

        Running requests are finished first, unless `immediately` is given or a process has died already.
        """
        group = [*self._stubs.values(), *(stub.process for stub in stubs_of(self.pid))]
        if self._process.poll() is None and not immediately and self.failure() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.settings.drain_seconds + 5)
        self.kill()
        self._process.wait()
        for process in group:  # a stub that left Triton's process group is still alive
            with contextlib.suppress(psutil.Error):
                process.kill()
        deadline = time.monotonic() + _KILLED_SECONDS
        while time.monotonic() < deadline and any(is_alive(process) for process in group):
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL to the whole process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _exit_text(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
