"""One run of Triton: started in a process group of its own, watched, stopped. `triton_server` restarts it."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import psutil

from intaglio.errors import Unavailable
from intaglio.serving.administration import Administration
from intaglio.serving.arguments import ALLOCATOR, TritonSettings, private_options, triton_arguments
from intaglio.serving.child import Child, Command
from intaglio.serving.installation import TritonInstallation
from intaglio.serving.json_log import json_lines
from intaglio.serving.log_file import LogFile
from intaglio.serving.secret import hand_over, new_secret, stand_in, variables_of
from intaglio.serving.stubs import is_alive, stubs_of
from intaglio.serving.triton_log import TritonLog
from intaglio.serving.workspace import Workspace

__all__ = ["TritonProcess"]

_POLL_SECONDS: Final = 0.05
_LAST_OUTPUT_SECONDS: Final = 0.25
"""Longest wait for what a process wrote just before its end."""
_KILLED_SECONDS: Final = 10.0
_END_SECONDS: Final = 5.0
"""How long Triton may take to end once no request is left."""


class TritonProcess:
    """A started server; `stop` must be called, whatever happened."""

    def __init__(
        self, installation: TritonInstallation, settings: TritonSettings, workspace: Workspace
    ) -> None:
        """Start it.

        Raises:
            OSError: its log cannot be written or the process cannot be started.
            SecretShown: the secret of a reloadable server cannot be handed over privately.
        """
        self.settings = settings
        self._stubs: dict[str, psutil.Process] = {}
        secret, name = new_secret(), workspace.folder.name
        self.administration = Administration(
            settings.endpoints.url("http"), name=name, secret=secret, load_seconds=settings.load_seconds
        )
        arguments = triton_arguments(
            settings,
            name=name,
            shared_memory_prefix=workspace.shared_memory_prefix,
            backends=installation.make_backend_folder(workspace.folder),
            options=installation.options,
        )
        self._log = TritonLog()
        self._file = LogFile(settings.log)
        try:
            private = private_options(secret, production=settings.endpoints.production)
            command = _command(installation, settings, workspace.folder, arguments, private)
            self._child = Child(command, self._keep)
        except BaseException:
            self._file.close()
            raise

    def _keep(self, lines: bytes) -> None:
        self._log.add(lines)
        as_json = self.settings.telemetry.format == "json"
        self._file.write(json_lines(lines) if as_json else lines)

    @property
    def log(self) -> Path:
        """The file that holds its output."""
        return self._file.path

    @property
    def pid(self) -> int:
        """Process id of `tritonserver`."""
        return self._child.pid

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
            Unavailable: Triton ended or was not ready in time; the message holds the reason in its log.
        """
        started = time.monotonic()
        while not stopped():
            if (code := self._child.poll()) is not None:
                self._child.wait_output(_LAST_OUTPUT_SECONDS)
                reason = self._log.failure() or _exit_text(code)
                raise Unavailable(f"Triton did not start: {reason}; log: {self.log}")
            if self.administration.is_ready():
                self._log.start_is_over()
                self._stubs = {stub.instance: stub.process for stub in stubs_of(self.pid)}
                return True
            seconds = time.monotonic() - started
            if seconds > self.settings.load_seconds:
                longest = f"{self.settings.load_seconds:g} s"
                raise Unavailable(f"Triton was not ready after {longest}; log: {self.log}")
            loaded = ", ".join(self._log.loaded()) or "nothing yet"
            report(f"starting Triton, {seconds:.0f} s; loaded: {loaded}")
            time.sleep(_POLL_SECONDS)
        return False

    def failure(self) -> str | None:
        """What died, the server itself or one of its model processes, and the error that its log held just
        before; None while all of them run.
        """
        if (code := self._child.poll()) is not None:
            died = f"Triton ended ({_exit_text(code)})"
        elif dead := [name for name, process in self._stubs.items() if not is_alive(process)]:
            died = f"the process of {', '.join(sorted(dead))} died"
        else:
            return None
        error = self._last_error()
        return died if error is None else f"{died}; its log says: {error}"

    def _last_error(self) -> str | None:
        """The error that a process wrote just before its end. It is in the pipe by then, or lost: Triton may
        not write what a model logged through `pb_utils.Logger` when the model's process ends right after it.
        """
        deadline = time.monotonic() + _LAST_OUTPUT_SECONDS
        while (error := self._log.recent_error()) is None and time.monotonic() < deadline:
            if self._child.wait_output(_POLL_SECONDS):
                return self._log.recent_error()
        return error

    def resident_bytes(self) -> dict[str, int]:
        """Resident memory of the server (`tritonserver`) and of every model process that runs, each with the
        processes that it started.
        """
        found: dict[str, int] = {}
        for name, process in {"tritonserver": psutil.Process(self.pid), **self._stubs}.items():
            with contextlib.suppress(psutil.Error):  # it has just ended
                if is_alive(process):
                    family = [process] if name == "tritonserver" else [process, *process.children()]
                    found[name] = sum(one.memory_info().rss for one in family)
        return found

    def stop(self, *, immediately: bool = False, by: float = math.inf) -> None:
        """End the whole process group; returns when no process is left.

        Running requests of single models are finished first, until `by` (as `time.monotonic` has it) and for
        `drain_seconds` at most, unless `immediately` is given or a process has died already.
        """
        group = [*self._stubs.values(), *(stub.process for stub in stubs_of(self.pid))]
        if not immediately and self.failure() is None:
            self._child.terminate()
            left = min(self.settings.drain_seconds, max(by - time.monotonic(), 0.0))
            self._child.wait(left + _END_SECONDS)
        self.kill()
        self._child.reap()
        for process in group:  # a stub that left Triton's process group is still alive
            with contextlib.suppress(psutil.Error):
                process.kill()
        deadline = time.monotonic() + _KILLED_SECONDS
        while time.monotonic() < deadline and any(is_alive(process) for process in group):
            time.sleep(_POLL_SECONDS)
        if self._child.close():
            self._file.close()

    def kill(self) -> None:
        """Send SIGKILL to the whole process group."""
        self._child.kill()


def _command(
    installation: TritonInstallation,
    settings: TritonSettings,
    folder: Path,
    arguments: Sequence[str],
    private: Sequence[str],
) -> Command:
    """`tritonserver` with `private` options. Only a server that can load models keeps them from other users:
    where the kernel does not allow that, they open little.
    """
    program = installation.binary
    environment = ALLOCATOR | installation.environment() | dict(settings.environment)
    if not settings.reloadable:
        words = [os.fspath(program), *arguments, *private]
        return Command(words=words, environment=environment, folder=folder)
    return Command(
        words=[os.fspath(program), *arguments, *map(stand_in, private)],
        environment=environment | variables_of(private),
        folder=folder,
        hand_over=lambda pid: hand_over(pid, program, private),
    )


def _exit_text(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
