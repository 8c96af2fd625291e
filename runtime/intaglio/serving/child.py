"""A process and the thread that owns it.

The kernel sends a child's PDEATHSIG when the thread that started it ends. So each child is started by a
thread of its own, which lives until the child is told to end, whichever thread asked for it. The same thread
copies the child's output.

The child keeps its process id until `reap`, also after its end, so a signal never reaches another process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from intaglio.serving import launch

__all__ = ["Child", "Command"]

_PIPE_BYTES: Final = 1 << 20
"""Output that fits in the pipe while this process is stopped; afterwards the child waits for it."""
_READ_BYTES: Final = 1 << 16
_LONGEST_LINE: Final = 1 << 16
"""A longer line is cut, so that a child that writes none cannot fill the memory."""
_POLL_SECONDS: Final = 0.05
_START_SECONDS: Final = 30.0
"""The longest that a start may take which nobody wants any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program and what it is started with."""

    words: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    hand_over: Callable[[int], None] | None = None
    """Called with the process id before the program's first instruction."""


class Child:
    """A started process, the leader of a process group of its own; `close` must be called."""

    def __init__(self, command: Command, output: Callable[[bytes], None]) -> None:
        """`output` gets whole lines, in a thread of its own.

        Raises:
            OSError: it cannot be started. Or what `command.hand_over` raises. Nothing is left behind.
        """
        self._output = output
        self._code: int | None = None
        self._reaping = threading.RLock()  # a signal handler may kill while its thread polls
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._leave = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._own, args=(command,), name="triton", daemon=True)
        try:
            self._thread.start()
            self._started.wait()
        except RuntimeError as error:  # Python's word for EAGAIN
            os.close(self._leave)
            raise OSError(errno.EAGAIN, str(error)) from error
        except BaseException:
            self._abandon()
            raise
        if self._error is not None:
            os.close(self._leave)
            self._thread.join()
            raise self._error

    @property
    def pid(self) -> int:
        """Process id, which belongs to this child until `reap`."""
        return self._process.pid

    def poll(self) -> int | None:
        """Exit code, or minus the signal; None while it runs."""
        with self._reaping:
            if self._code is None:
                found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None:
                    return None
                self._code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
            return self._code

    def wait(self, seconds: float) -> bool:
        """Whether it ends within `seconds`."""
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def wait_output(self, seconds: float) -> bool:
        """Whether everything that was written reaches `output` within `seconds`. A descendant that keeps the
        output open prevents it.
        """
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def terminate(self) -> None:
        """Send SIGTERM to the process."""
        self._signal(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to its process group."""
        self._signal(os.killpg, signal.SIGKILL)

    def reap(self) -> None:
        """Wait for the end of the process and give its id free. `poll` still tells the exit code."""
        while self.poll() is None:
            time.sleep(_POLL_SECONDS)
        with self._reaping:
            self._process.wait()

    def close(self, *, seconds: float = 2.0) -> bool:
        """End the thread, whoever keeps the output open; call it after `reap`. False where `output` has not
        returned for `seconds`, and may still be called.
        """
        if not self.wait_output(seconds / 2):
            os.eventfd_write(self._leave, 1)
            if not self.wait_output(seconds / 2):
                return False
        os.close(self._leave)
        return True

    def _abandon(self) -> None:
        """Leave nothing behind after an interrupt (Ctrl-C) of the start, which goes on in the thread."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._started.is_set() and time.monotonic() < deadline:
            with contextlib.suppress(KeyboardInterrupt):  # the first one is on its way to the caller
                self._started.wait(_POLL_SECONDS)
        if self._thread.ident is None:  # it never began
            os.close(self._leave)
            return
        if self._started.is_set() and self._error is None:
            self.kill()
            self.reap()
        self.close()

    def _signal(self, send: Callable[[int, int], None], number: int) -> None:
        with self._reaping, contextlib.suppress(ProcessLookupError):
            if self._process.returncode is None:  # not reaped
                send(self.pid, number)

    def _own(self, command: Command) -> None:
        """The thread: start the process, copy its output, and stay until it has ended."""
        try:
            reading = self._start_with_pipe(command)
        except BaseException as error:
            self._error = error
            return
        finally:
            self._started.set()
        try:
            ended = self._copy(reading)
        finally:
            os.close(reading)
        if ended:
            with contextlib.suppress(ChildProcessError):  # it is reaped already
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def _start_with_pipe(self, command: Command) -> int:
        """Start the process; the descriptor that its output is read from."""
        reading, writing = os.pipe()
        try:
            with contextlib.suppress(OSError):  # a user has a limit for pipes
                fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._start(command, writing)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return reading

    def _start(self, command: Command, output: int) -> None:
        mode = "free" if command.hand_over is None else "traced"
        self._process = subprocess.Popen(
            [sys.executable, "-I", launch.__file__, str(os.getpid()), mode, *command.words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=command.environment,
            cwd=command.folder,
            start_new_session=True,  # Ctrl-C is for us, and we tell the child to stop
        )
        if command.hand_over is None:
            return
        try:
            command.hand_over(self._process.pid)
        except BaseException:
            self.kill()
            self._process.wait()
            raise

    def _copy(self, reading: int) -> bool:
        """Copy the output to its end; False where `close` did not wait for that."""
        begun = b""
        waiting = select.poll()
        waiting.register(reading, select.POLLIN)
        waiting.register(self._leave, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in waiting.poll()]
            if reading not in ready:
                return False
            read = os.read(reading, _READ_BYTES)
            whole, newline, begun = (begun + read).rpartition(b"\n")
            if begun and (not read or len(begun) > _LONGEST_LINE):
                whole, newline, begun = whole + newline + begun, b"\n", b""
            if newline:
                self._output(whole + newline)
            if not read:
                return True
