"""Folders that are read-only or full, for real: in a mount namespace of the server alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from intaglio.contract.config import Deployment
from intaglio_client import Client

from .conftest import CONFIG_FILE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]

PORTS = ("--http-port=0", "--grpc-port=0", "--metrics-port=0")


@pytest.fixture(scope="module", autouse=True)
def _needs_mounts() -> None:
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets the tests mount nothing")


@contextmanager
def serving(mounts: str, *words: str, folder: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """`intaglio serve` where `mounts` has been run before, which nobody else sees."""
    environment = os.environ | {"TMPDIR": str(folder or tempfile.gettempdir())}
    command = [sys.executable, "-m", "intaglio", "serve", str(CONFIG_FILE), *PORTS, "--json", *words]
    script = f'{mounts} && exec "$@"'
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def refusal(mounts: str, *words: str, folder: Path | None = None) -> str:
    with serving(mounts, *words, folder=folder) as process:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 1
        return said.splitlines()[-1]


def read_only(folder: Path) -> str:
    return f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"


def test_a_build_that_is_read_only_is_served(miniature: Deployment, tmp_path: Path) -> None:
    """But for the log, which would lie in it."""
    build = miniature.build_folder.resolve()
    said = refusal(read_only(build))
    assert said.endswith(
        f"{miniature.build_folder}/triton.log: Read-only file system; --log names another file"
    )
    with serving(read_only(build), f"--log={tmp_path / 'triton.log'}") as process:
        assert process.stdout is not None
        at = json.loads(process.stdout.readline())
        with Client(at["grpc"], deadline=60) as client:
            assert client.generate("a person in a room", steps=2, loras=[("night", 0.8)]).data
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("size", "place"),
    [("4k", ""), ("8k", ""), ("12k", "/model_repository")],
    ids=lambda value: value or "own",
)
def test_no_room_for_the_servers_own_folder(
    miniature: Deployment, tmp_path: Path, size: str, place: str
) -> None:
    """Neither for the files that say where the server answers, nor for the repository."""
    small = tmp_path / "small"
    small.mkdir()
    log = f"--log={tmp_path / 'triton.log'}"
    said = refusal(f"mount -t tmpfs -o size={size} none {small}", log, folder=small)
    assert said.startswith("intaglio serve: ")
    assert re.search(rf"{re.escape(str(small))}/intaglio-serve-\w+{place}: the disk is full$", said)


def test_no_room_in_shared_memory(miniature: Deployment, tmp_path: Path) -> None:
    """Triton itself says what to do."""
    said = refusal("mount -t tmpfs -o size=2m none /dev/shm", f"--log={tmp_path / 'triton.log'}")
    assert "Triton did not start: " in said
    assert "use '--shm-size' flag" in said
