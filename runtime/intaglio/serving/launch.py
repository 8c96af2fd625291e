"""`python launch.py PARENT COMMAND ...`: becomes COMMAND, which gets SIGTERM when PARENT ends without
stopping it.

A program of its own, because what runs between fork and exec in a process with threads (gRPC has many) may
deadlock.
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
