"""What the servers of this test session left behind: folders, shared memory, processes.

Other sessions run servers on the same machine. So this session has a temporary folder of its own, and the
kernel tells the name of every server's folder that is made in it. The segments in shared memory begin with
that name.
"""

from __future__ import annotations

import ctypes
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from intaglio.serving.workspace import SHARED_MEMORY

__all__ = ["OwnServers", "nothing_left", "own_servers"]

PREFIX = "intaglio-serve-"
_IN_CREATE = 0x100
_EVENT = struct.Struct("iIII")
"""inotify_event of sys/inotify.h; a name of as many bytes as the last field says follows."""


class OwnServers:
    """Every server whose folder was made in `folder` since then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: set[str] = set()
        libc = ctypes.CDLL(None, use_errno=True)
        self._events: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        watched = libc.inotify_add_watch(self._events, os.fsencode(folder), _IN_CREATE)
        assert min(self._events, watched) >= 0, os.strerror(ctypes.get_errno())

    def names(self) -> frozenset[str]:
        """Names of their folders, also of those that are removed."""
        while read := self._read():
            place = 0
            while place < len(read):
                *_, length = _EVENT.unpack_from(read, place)
                place += _EVENT.size
                name = os.fsdecode(read[place : place + length].rstrip(b"\0"))
                place += length
                if name.startswith(PREFIX):
                    self._names.add(name)
        return frozenset(self._names)

    def _read(self) -> bytes:
        try:
            return os.read(self._events, 1 << 16)
        except BlockingIOError:
            return b""

    def left(self) -> set[str]:
        """Their folders, segments and processes that are there now."""
        names = self.names()
        found = {str(path) for path in self.folder.glob(f"{PREFIX}*")}
        found |= {
            str(path) for path in SHARED_MEMORY.glob(f"{PREFIX}*") if path.name.rpartition("_")[0] in names
        }
        for process in psutil.process_iter(["name", "cmdline", "status"]):
            command = " ".join(process.info["cmdline"] or [])
            if f"{self.folder}/{PREFIX}" in command and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.add(f"{process.pid} {process.info['name']}")
        return found

    def close(self) -> None:
        """Learn of no more servers."""
        os.close(self._events)


@pytest.fixture(scope="session", autouse=True)
def own_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServers]:
    """Servers that others run on this machine are not ours to sweep or to count."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("temporary")
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)
        servers = OwnServers(folder)
        yield servers
        servers.close()


@pytest.fixture
def nothing_left(own_servers: OwnServers) -> Iterator[None]:
    """Fails the test that leaves anything of a server behind (what others run beside it is not looked at)."""
    before = own_servers.left()
    yield
    left = own_servers.left() - before
    assert not left, f"left behind: {sorted(left)}"
