"""`python launch.py PARENT COMMAND ...`: becomes COMMAND, which gets SIGTERM when PARENT ends without
stopping it.

This is a program of its own, because code between fork and exec may deadlock in a process with threads, and
gRPC has many.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def main(parent: int, command: list[str]) -> None:
    """Does not return."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # it ended before we asked
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
