"""`python launch.py PARENT traced|free COMMAND ...`: becomes COMMAND, which gets SIGTERM when the thread of
PARENT that started it ends.

`traced` lets that thread look at COMMAND before its first instruction. This is a program of its own, because
code between fork and exec may deadlock in a process with threads, and gRPC has many.

SIGPIPE is ignored, as Python ignores it, and COMMAND inherits that: once PARENT is gone nobody reads the
output, and COMMAND must still be able to finish its work.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)
PTRACE_TRACEME = 0  # ptrace(2)
NOT_TRACED = 97
"""Exit code where the kernel does not allow PARENT to trace."""


def main(parent: int, mode: str, command: list[str]) -> None:
    """Does not return."""
    library = ctypes.CDLL(None)
    library.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # it ended before we asked
        sys.exit(1)
    if mode == "traced" and library.ptrace(PTRACE_TRACEME, 0, None, None) != 0:
        sys.exit(NOT_TRACED)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
