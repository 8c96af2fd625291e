"""Triton's model processes are found by the name of their program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from intaglio.serving.stubs import is_alive, stubs_of

SLEEP = "import sys; print(flush=True); sys.stdin.read()"


def test_stubs_below_a_process(tmp_path: Path) -> None:
    model = tmp_path / "diffuse" / "3" / "model.py"
    model.parent.mkdir(parents=True)
    model.write_text(SLEEP)
    words = [str(model), "segment", "1", "1", "1", "backends", "0", "diffuse_0_0", "runtime"]
    stub = subprocess.Popen(
        ["/tmp/triton_python_backend_stub", *words],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    other = subprocess.Popen([sys.executable, "-c", SLEEP], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with stub, other:
        assert stub.stdout is not None
        stub.stdout.readline()
        # A server of another test of this process has stubs, too.
        stubs = {one.process.pid: one for one in stubs_of(os.getpid())}
        assert other.pid not in stubs
        found = stubs[stub.pid]
        assert (found.instance, found.version) == ("diffuse_0_0", 3)
        assert is_alive(found.process)
        stub.kill()
        other.kill()
        stub.wait()
        assert not is_alive(found.process)


def test_a_process_that_is_gone_has_none() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert not psutil.pid_exists(process.pid)
    assert stubs_of(process.pid) == []
