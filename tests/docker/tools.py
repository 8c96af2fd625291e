"""The programs that these tests need, and what is said where one is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

__all__ = ["REQUIRED", "ROOT", "need_containers", "output_of", "program"]

ROOT: Final = Path(__file__).parents[2]
REQUIRED: Final = "INTAGLIO_SHIP_REQUIRED"
"""A variable in which `.ci/run` names the extra and the packages of Debian that are installed: no program of
theirs may be missing.
"""
_PLACES: Final = (
    f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin"
)
_NEW_NAMESPACES: Final = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "sh", "-ec")
_FIRST_STEPS: Final = "mount -t tmpfs tmpfs /mnt; mount -t proc proc /proc; chroot / true"
"""Of buildah and crun. A container of Docker's may take none of them unless it is --privileged."""


def program(name: str, package: str) -> str:
    """Path of the program `name`; without it the test is skipped, or fails where `package` is required."""
    found = shutil.which(name, path=_PLACES)
    if found is None:
        reason = f"{name} is not installed; {package} has it"
        if package.rsplit(maxsplit=1)[-1].strip("`") in os.environ.get(REQUIRED, "").split():
            pytest.fail(reason)
        pytest.skip(reason)
    return str(found)


def need_containers() -> None:
    """Skip the test where this machine lets nobody make containers, whatever is installed on it."""
    if os.geteuid() != 0:
        pytest.skip("containers without a daemon are built and run as root here")
    command = [program("unshare", "Debian's util-linux"), *_NEW_NAMESPACES[1:], _FIRST_STEPS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        pytest.skip(f"this machine allows no containers: {done.stderr.strip()}")


def output_of(*words: str | Path, seconds: float = 120) -> str:
    """What a command prints; its errors fail the test."""
    done = subprocess.run(
        [*map(str, words)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{words}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout
