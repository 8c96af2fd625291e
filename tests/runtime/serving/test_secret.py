"""A secret reaches a process, and no command line ever shows it."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from intaglio.serving import secret as handing
from intaglio.serving.child import Child, Command
from intaglio.serving.launch import NOT_TRACED
from intaglio.serving.secret import SecretShown, hand_over, new_secret, stand_in, variables_of

SHELL = Path("/bin/sh")
SAY = 'echo "given: $*"; echo "kept: $(env | grep -c 0ption)"; tr "\\0" " " </proc/$$/cmdline; read wait'


def started(
    options: list[str], folder: Path, *, program: Path = SHELL, stray: str = ""
) -> tuple[Child, bytes]:
    """A shell that was handed `options`, and everything it wrote."""
    output: list[bytes] = []
    words = [os.fspath(SHELL), "-c", SAY, "sh", "first", *map(stand_in, options), "last"]
    command = Command(
        words=words,
        environment={"PATH": os.environ["PATH"], "STRAY": stray} | variables_of(options),
        folder=folder,
        hand_over=lambda pid: hand_over(pid, program, options),
    )
    child = Child(command, output.append)
    assert child.wait(20)
    assert child.wait_output(5)
    child.reap()
    assert child.close()
    return child, b"".join(output)


def test_the_process_parses_what_nobody_else_can_read(tmp_path: Path) -> None:
    options = [f"--0ption-a=x:key={new_secret()}", f"--0ption-b={new_secret()}"]
    child, output = started(options, tmp_path, stray=f"{options[0]} --0ption-a=private")
    given, kept, line = output.decode().splitlines()
    assert given == f"given: first {options[0]} {options[1]} last"
    assert kept == "kept: 1", "the stray variable alone: children inherit none of the options"
    assert line.split()[-4:] == ["first", "--0ption-a=private", "--0ption-b=private", "last"]
    assert child.poll() == 1, "end of file for `read`"


def test_no_option_is_readable_at_any_time(tmp_path: Path) -> None:
    """Every command line that the process has, sampled as fast as possible."""
    watcher = """
import os, sys
seen = set()
pid = int(sys.argv[1])
print("up", flush=True)
while True:
    try:
        seen.add(open(f"/proc/{pid}/cmdline", "rb").read())  # empty for a moment while a program is replaced
        state = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
    except OSError:
        break
    if state == "Z":
        break
print(b"|".join(seen).replace(b"\\0", b" ").decode())
"""
    options = [f"--0ption={new_secret()}"]
    watching: list[subprocess.Popen[str]] = []

    def watch_and_hand_over(pid: int) -> None:
        watching.append(
            subprocess.Popen([sys.executable, "-c", watcher, str(pid)], stdout=subprocess.PIPE, text=True)
        )
        assert watching[0].stdout is not None
        watching[0].stdout.readline()
        hand_over(pid, SHELL, options)

    command = Command(
        words=[os.fspath(SHELL), "-c", "sleep 0.3; true", "sh", *map(stand_in, options)],
        environment=os.environ | variables_of(options),
        folder=tmp_path,
        hand_over=watch_and_hand_over,
    )
    child = Child(command, lambda _: None)
    assert child.wait(20)
    seen = watching[0].communicate(timeout=20)[0]
    child.reap()
    assert child.close()
    assert "--0ption=private" in seen
    assert not re.search("[0-9a-f]{32}", seen)


def test_a_signal_on_its_way_is_delivered(tmp_path: Path) -> None:
    options = ["--0ption=x"]

    def stop_and_hand_over(pid: int) -> None:
        os.kill(pid, 15)
        hand_over(pid, SHELL, options)

    words = [os.fspath(SHELL), "-c", "sleep 60", "sh", *map(stand_in, options)]
    environment = os.environ | variables_of(options)
    command = Command(words=words, environment=environment, folder=tmp_path, hand_over=stop_and_hand_over)
    child = Child(command, lambda _: None)
    assert child.wait(20)
    assert child.poll() == -15
    child.reap()
    assert child.close()


def test_another_program_gets_nothing(tmp_path: Path) -> None:
    """A script that starts Triton would show the options on Triton's own command line."""
    with pytest.raises(SecretShown, match="not the program that runs, but starts it"):
        started(["--0ption=x"], tmp_path, program=Path("/bin/ls"))


def test_a_program_that_cannot_be_started_is_not_the_secrets_fault(tmp_path: Path) -> None:
    command = Command(
        words=[os.fspath(tmp_path / "missing")],
        environment=dict(os.environ),
        folder=tmp_path,
        hand_over=lambda pid: hand_over(pid, tmp_path / "missing", []),
    )
    output: list[bytes] = []
    child = Child(command, output.append)
    assert child.wait(20)
    assert child.wait_output(5)
    child.reap()
    assert child.close()
    assert b"FileNotFoundError" in b"".join(output)


@pytest.mark.parametrize("patched", ["_stack_start", "_ptrace"])
def test_a_kernel_that_forbids_it(patched: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(handing, patched, deny)
    with pytest.raises(SecretShown, match="not permitted"):
        started(["--0ption=x"], tmp_path)


def test_a_shortage_that_passes_does_not_close_the_administration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(handing, "_stack_start", fail)
    with pytest.raises(OSError, match="Too many open files"):
        started(["--0ption=x"], tmp_path)


def test_a_kernel_that_forbids_tracing() -> None:
    """`launch.py` says so with its exit code."""
    denied = [sys.executable, "-c", f"raise SystemExit({NOT_TRACED})"]
    refused = pytest.raises(SecretShown, match="does not let a process be traced")
    with subprocess.Popen(denied) as process, refused:
        hand_over(process.pid, SHELL, ["--0ption=x"])


def test_arguments_elsewhere_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handing, "_packed", lambda pointers: b"elsewhere")
    with pytest.raises(SecretShown, match="not where the kernel puts them"):
        started(["--0ption=x"], tmp_path)


def test_secrets_differ() -> None:
    assert new_secret() != new_secret()
