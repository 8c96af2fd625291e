"""A process and the thread that owns it: real processes, no Triton."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from intaglio.serving import child as owning
from intaglio.serving.child import Child, Command

SLEEP = "import time; print('up', flush=True); time.sleep(60)"


def command(program: str, folder: Path, hand_over: Callable[[int], None] | None = None) -> Command:
    words = [sys.executable, "-c", program]
    return Command(words=words, environment=dict(os.environ), folder=folder, hand_over=hand_over)


def wait_until(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def end(child: Child) -> None:
    child.kill()
    child.reap()
    assert child.close()


def test_output_comes_in_whole_lines(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys, time
        for part in ("a", "b\\nc", "\\n", "x" * 200_000, "\\nlast"):
            sys.stdout.write(part); sys.stdout.flush(); time.sleep(0.05)
    """)
    got: list[bytes] = []
    child = Child(command(program, tmp_path), got.append)
    assert child.wait(20)
    assert child.wait_output(5)
    assert all(lines.endswith(b"\n") for lines in got)
    lines = b"".join(got).split(b"\n")
    assert (lines[:2], lines[-2:]) == ([b"ab", b"c"], [b"last", b""])
    assert b"".join(lines[2:-2]) == b"x" * 200_000
    assert max(map(len, lines)) <= owning._LONGEST_LINE + owning._READ_BYTES
    assert child.poll() == 0
    end(child)


def test_a_child_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    started: list[Child] = []
    got: list[bytes] = []
    asking = threading.Thread(target=lambda: started.append(Child(command(SLEEP, tmp_path), got.append)))
    asking.start()
    asking.join()
    child = started[0]
    wait_until(lambda: got)
    assert not child.wait(0.5)
    end(child)
    assert child.poll() == -signal.SIGKILL


def test_its_id_is_kept_until_it_is_reaped(tmp_path: Path) -> None:
    child = Child(command("", tmp_path), lambda _: None)
    assert child.wait(20)
    assert child.poll() == 0
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    child.reap()
    assert not psutil.pid_exists(child.pid)
    child.kill()  # nobody
    child.terminate()
    assert child.poll() == 0
    assert child.close()


def test_a_descendant_that_keeps_the_output_open_keeps_nobody(tmp_path: Path) -> None:
    program = "import subprocess, sys; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid)"
    got: list[bytes] = []
    child = Child(command(program, tmp_path), got.append)
    wait_until(lambda: got)
    assert child.wait(20)
    assert not child.wait_output(0.2)
    end(child)
    os.kill(int(got[0]), signal.SIGKILL)


def test_an_output_that_blocks_is_not_waited_for(tmp_path: Path) -> None:
    block = threading.Event()
    child = Child(command("print(1)", tmp_path), lambda _: block.wait(20) and None)
    assert child.wait(20)
    child.reap()
    assert not child.close(seconds=0.2)
    block.set()
    assert child.close()


def test_what_cannot_be_started_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        Child(command("", tmp_path / "missing"), print)

    def no_pipe() -> Any:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as full:
        full.setattr(owning.os, "pipe", no_pipe)
        with pytest.raises(OSError, match="Too many open files"):
            Child(command("", tmp_path), print)

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(BlockingIOError, match="can't start new thread"):
            Child(command("", tmp_path), print)
    assert len(os.listdir("/proc/self/fd")) <= before
    pids: list[int] = []

    def refuse(pid: int) -> None:
        pids.append(pid)
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        Child(command(SLEEP, tmp_path, refuse), print)
    assert not psutil.pid_exists(pids[0])


def test_an_interrupted_start_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the child is started: nobody else could ever end it."""
    before = len(os.listdir("/proc/self/fd"))
    interrupted = threading.Event()
    pids: list[int] = []

    def hand_over(pid: int) -> None:
        pids.append(pid)
        assert interrupted.wait(20)

    class Started(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if not interrupted.is_set():
                wait_until(lambda: pids)
                interrupted.set()
                raise KeyboardInterrupt
            return super().wait(timeout)

    with monkeypatch.context() as patch:
        patch.setattr(owning.threading, "Event", Started)
        with pytest.raises(KeyboardInterrupt):
            Child(command(SLEEP, tmp_path, hand_over), lambda _: None)
    assert not psutil.pid_exists(pids[0])
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_killed_owner_lets_its_child_end_cleanly(tmp_path: Path) -> None:
    """The child gets SIGTERM, and what it still writes does not kill it."""
    program = textwrap.dedent(f"""
        import signal, sys, time
        from pathlib import Path

        def end(*_):
            time.sleep(0.3)
            try:
                print("x" * 100_000, flush=True)
            except BrokenPipeError:
                Path({str(tmp_path / "drained")!r}).touch()
            sys.exit()

        signal.signal(signal.SIGTERM, end)
        print("up", flush=True)
        time.sleep(60)
    """)
    owner = textwrap.dedent(f"""
        import os, sys, threading, time
        from pathlib import Path
        from intaglio.serving.child import Child, Command

        words = [sys.executable, "-c", {program!r}]
        up = threading.Event()
        command = Command(words=words, environment=dict(os.environ), folder=Path("/"))
        child = Child(command, lambda _: up.set())
        up.wait()
        print(child.pid, flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    assert (tmp_path / "drained").exists()
