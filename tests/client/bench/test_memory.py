"""The memory of a server on this machine: a process that holds a known amount."""

from __future__ import annotations

import socket
import subprocess
import sys

import psutil
import pytest

from intaglio.engines.card import CardMemory
from intaglio.errors import ConfigError
from intaglio_client.bench.memory import MemoryWatch, local_process
from intaglio_client.bench.turns import server_process

HOLDER = """
import sys
import subprocess
held = bytearray(b"x" * 64 * 2**20)
more = "held = bytearray(b'x' * 32 * 2**20); print(flush=True); input()"
subprocess.run([sys.executable, "-c", more])
"""


def test_the_memory_of_all_processes_of_a_server_is_seen() -> None:
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()  # the child holds its part, too
        used = iter([5, 9, 7])
        with MemoryWatch(
            psutil.Process(holder.pid), card=0, read=lambda _: CardMemory(10, next(used, 6), 4)
        ) as watch:
            while watch.peak is None or watch.peak.card_bytes != 9:
                pass
        holder.communicate("\n")
    found = watch.peak
    assert found is not None
    assert 96 * 2**20 < found.host_bytes < 160 * 2**20
    assert found.card_bytes == 9, "the most, not the last"


def test_a_server_that_is_elsewhere_is_not_looked_at() -> None:
    assert local_process("192.0.2.1:8001") is None
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert local_process(f"127.0.0.1:{port}") is None, "a tunnel or a proxy"
        with pytest.raises(ConfigError, match=rf" listens at 127\.0\.0\.1:{port}, and not tritonserver"):
            server_process(f"127.0.0.1:{port}")
    with MemoryWatch(None) as watch:
        pass
    assert watch.peak is None
