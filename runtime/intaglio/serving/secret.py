"""The secret that opens Triton's administration, and how it leaves Triton's command line.

The secret is new at every start. It reaches Triton through its command line, which is the only way that
Triton offers, and every user of this machine can read a command line. As soon as Triton has parsed it (the
first line of its log shows that), stars take the secret's place, before any port of Triton is open. Someone
who read the secret in between can use it while this Triton runs.

Some kernels do not let the secret be hidden. Triton then runs without loading and unloading, so a secret that
stays readable only opens the settings of shared memory, log and trace.
"""

from __future__ import annotations

import errno
import secrets
from pathlib import Path

from intaglio.errors import Unavailable

__all__ = ["SecretShown", "hide_secret", "new_secret"]


class SecretShown(Unavailable):
    """The kernel does not let the administrator's secret be removed from Triton's command line."""


def new_secret() -> str:
    """128 random bits."""
    return secrets.token_hex(16)


def hide_secret(pid: int, secret: str) -> None:
    """Write stars over `secret` in the command line of the process `pid`.

    Raises:
        SecretShown: it is still readable.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        begin, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5)
        with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
            memory.seek(begin)
            line = memory.read(end - begin)
            memory.seek(begin)
            memory.write(line.replace(secret.encode(), b"*" * len(secret)))
        if secret.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            raise OSError(errno.EIO, "it was not written")
    except (OSError, ValueError, OverflowError) as error:
        raise SecretShown(f"the administrator's secret stays in Triton's command line: {error}") from error
