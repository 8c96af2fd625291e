"""A secret leaves the command line of a running process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from intaglio.serving.secret import SecretShown, hide_secret, new_secret


@pytest.fixture
def told() -> Iterator[tuple[int, str]]:
    """A process that was told a secret."""
    secret = new_secret()
    program = "import sys; print('read', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, f"--secret={secret}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"read\n"
        yield process.pid, secret
        process.kill()


def test_stars_take_its_place(told: tuple[int, str]) -> None:
    pid, secret = told
    assert secret.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    hide_secret(pid, secret)
    line = Path(f"/proc/{pid}/cmdline").read_bytes()
    assert secret.encode() not in line
    assert b"--secret=" + b"*" * len(secret) in line


def test_a_process_that_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with pytest.raises(SecretShown, match="stays in Triton's command line"):
        hide_secret(process.pid, "secret")


def test_secrets_differ() -> None:
    assert new_secret() != new_secret()
