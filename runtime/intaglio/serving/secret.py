"""The secret that opens Triton's administration, and how it reaches Triton without being readable.

The secret is new at every start. Triton takes it only as an option, and every user of this machine can read a
command line. So the command line that the kernel shows holds a stand-in for each option with the secret. The
options themselves are variables of the environment, which only this user can read.

Triton is stopped before its first instruction (ptrace(2)). Then the pointers to the stand-ins are changed
into pointers to those variables, so Triton parses the real options. The variables are taken out of the
environment that Triton's children inherit. Nothing is ever hidden afterwards, since nothing was shown. Triton
refuses a stand-in as an option, so it cannot run with a secret that somebody can guess.

Some kernels do not allow this. Triton then runs without loading and unloading, and a secret that is readable
only opens the settings of shared memory, log and trace.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import signal
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from intaglio.errors import Unavailable
from intaglio.serving.launch import NOT_TRACED

__all__ = ["SecretShown", "hand_over", "new_secret", "stand_in", "variables_of"]

_VARIABLE: Final = "INTAGLIO_PRIVATE_OPTION_"
_STAND_IN: Final = "private"
_PTRACE_CONT: Final = 7  # ptrace(2)
_PTRACE_DETACH: Final = 17
_PASSING: Final = (errno.ESRCH, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that say nothing of what the kernel allows."""


class SecretShown(Unavailable):
    """The kernel does not let Triton get the administrator's secret without showing it to other users."""


def new_secret() -> str:
    """128 random bits."""
    return secrets.token_hex(16)


def stand_in(option: str) -> str:
    """What the command line holds in the place of `option`, which is `--NAME=VALUE`."""
    return f"{option.partition('=')[0]}={_STAND_IN}"


def variables_of(options: Sequence[str]) -> dict[str, str]:
    """The environment that brings `options` to a process for `hand_over`."""
    return {f"{_VARIABLE}{number}": option for number, option in enumerate(options)}


def hand_over(pid: int, program: Path, options: Sequence[str]) -> None:
    """Let the process `pid`, which becomes `program`, parse `options` in the place of their stand-ins.

    The process was started by the calling thread through `launch.py` with `traced`, and has `variables_of` in
    its environment. This returns when `program` runs, or has ended before it began.

    Raises:
        SecretShown: the kernel does not allow it, or the process became something else than `program`. The
            process has not begun to run `program`, or runs it with the stand-ins, which Triton refuses.
        OSError: the process was killed, or this process has no memory or descriptors left at the moment.
    """
    try:
        if _stopped_before_it_runs(pid):
            try:
                if not os.path.samefile(f"/proc/{pid}/exe", program):
                    raise SecretShown(f"{program} is not the program that runs, but starts it")
                _point_at_variables(pid, options)
            finally:
                _ptrace(_PTRACE_DETACH, pid, 0)
    except (OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno in _PASSING:
            raise
        raise SecretShown(f"the administrator's secret cannot be handed over privately: {error}") from error


def _stopped_before_it_runs(pid: int) -> bool:
    """Wait until the process stops after its exec; False where it has ended. An exit stays to be reaped."""
    while True:
        found = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if found is None or found.si_code not in (os.CLD_TRAPPED, os.CLD_STOPPED):
            if found is not None and (found.si_code, found.si_status) == (os.CLD_EXITED, NOT_TRACED):
                raise SecretShown("this kernel does not let a process be traced by its parent")
            return False
        os.waitpid(pid, 0)
        if found.si_status == signal.SIGTRAP:
            return True
        _ptrace(_PTRACE_CONT, pid, found.si_status)  # a signal on its way to the process


def _point_at_variables(pid: int, options: Sequence[str]) -> None:
    """Change the argument pointers on the stack of a process that has not run an instruction yet.

    The kernel writes there: argc, argv[0..argc], 0, envp[0..], 0, the auxiliary vector, and above them the
    strings. The strings tell what every pointer must be, so the table of pointers is found by its content.

    Raises:
        ValueError: the table, a stand-in or a variable is not there.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    arguments_start, arguments_end, environment_start, environment_end = (int(text) for text in fields[45:49])
    with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        arguments = _Strings(memory, arguments_start, arguments_end)
        environment = _Strings(memory, environment_start, environment_end)
        pointers = [*arguments.at, 0, *environment.at, 0]
        stack = _stack_start(pid)
        table = _read(memory, stack, arguments_start).find(_packed(pointers))
        if table < 0:
            raise ValueError("the arguments are not where the kernel puts them")
        for name, option in variables_of(options).items():
            variable = environment.values.index(f"{name}={option}".encode())
            pointers[arguments.values.index(stand_in(option).encode())] = (
                environment.at[variable] + len(name) + 1
            )
            # An empty string, which is no variable: the children of the process do not inherit the option.
            pointers[len(arguments.at) + 1 + variable] += len(f"{name}={option}".encode())
        memory.seek(stack + table)
        memory.write(_packed(pointers))


class _Strings:
    """Consecutive strings of another process, each with a zero byte at its end, and where each one begins."""

    def __init__(self, memory: IO[bytes], start: int, end: int) -> None:
        self.values = _read(memory, start, end).split(b"\0")[:-1]
        self.at: list[int] = []
        for value in self.values:
            self.at.append(start)
            start += len(value) + 1


def _read(memory: IO[bytes], start: int, end: int) -> bytes:
    memory.seek(start)
    return memory.read(end - start)


def _packed(pointers: Sequence[int]) -> bytes:
    return struct.pack(f"{len(pointers)}P", *pointers)


def _stack_start(pid: int) -> int:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith("[stack]"):
            return int(line.partition("-")[0], 16)
    raise ValueError("the process has no stack")


def _ptrace(request: int, pid: int, data: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.ptrace(request, pid, None, ctypes.c_void_p(data)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
