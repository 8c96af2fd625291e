"""The programs that these tests need, and what is said where one is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

__all__ = ["REQUIRED", "ROOT", "need_root", "output_of", "program"]

ROOT: Final = Path(__file__).parents[2]
REQUIRED: Final = "INTAGLIO_SHIP_REQUIRED"
"""A variable that `.ci/run` sets where it could install Debian's packages: then nothing may be skipped."""
_PLACES: Final = (
    f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin"
)


def program(name: str, package: str) -> str:
    """Path of the program `name`; without it the test is skipped, or fails where nothing may be skipped."""
    found = shutil.which(name, path=_PLACES)
    if found is None:
        _give_up(f"{name} is not installed; {package} has it")
    return str(found)


def need_root() -> None:
    """Containers are made as root here."""
    if os.geteuid() != 0:
        _give_up("containers without a daemon are built and run as root here")


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


def _give_up(reason: str) -> None:
    if os.environ.get(REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)
