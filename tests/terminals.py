"""A command in a pseudo-terminal, as a person runs it."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Terminal", "visible"]

_OWN_TERMINAL = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
"""Makes standard input the terminal of the process, so that Ctrl-C becomes SIGINT."""
_CONTROLS = re.compile(r"\x1b\][^\x07]*\x07|\x1b[_P].*?\x1b\\|\x1b\[[\d;?]*[A-Za-z]|\x1b[78]", re.DOTALL)


class Terminal:
    """`command` in a terminal of its own; everything that it writes is kept."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        size: tuple[int, int] = (100, 30),
    ) -> None:
        """`size` is columns and rows."""
        self._command = [sys.executable, "-c", _OWN_TERMINAL, *command]
        self._folder = folder
        self._environment = {**os.environ, "TERM": "xterm-256color", **(environment or {})}
        self._size = size
        self.written = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def __enter__(self) -> Self:
        self._master, slave = pty.openpty()
        columns, rows = self._size
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            self._command, cwd=self._folder, env=self._environment, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)

    def press(self, keys: str) -> None:
        """Type `keys`; "\\x03" is Ctrl-C."""
        os.write(self._master, keys.encode())

    def wait_for(self, text: str, *, seconds: float = 60) -> None:
        """Read until `text` was written."""
        until = time.monotonic() + seconds
        while text not in self.written:
            assert self._read(until), f"{text!r} does not come; written: {self.written!r}"

    def end(self, *, seconds: float = 60) -> int:
        """Read until the command ends; its exit code."""
        until = time.monotonic() + seconds
        while self._read(until):
            pass
        return self.process.wait(max(0.1, until - time.monotonic()))

    def _read(self, until: float) -> bool:
        """Keep what is written next; False at the end and when time is up."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return False
        read = b""
        with contextlib.suppress(OSError):  # the other end is closed
            read = os.read(self._master, 1 << 16)
        self.written += self._decoder.decode(read)
        return bool(read)


def visible(written: str) -> Iterator[str]:
    """Every line, and every state of a line, without control sequences."""
    for line in re.split(r"[\r\n]+", _CONTROLS.sub("", written)):
        if line.strip():
            yield line.strip()
