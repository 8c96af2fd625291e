"""A wheel of this tree, and new environments that have it installed.

uv makes them: it keeps what it downloaded, so the second environment costs seconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SETTINGS_OF_PIP: Final = {
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
}
"""Where pip finds packages, and the variable that tells uv the same."""

WHEELS_ONLY: Final = ("--only-binary", ":all:", "--no-binary", "tensorrt-rtx-cu12")
"""uv compiles nothing. NVIDIA publishes the exception as a source package of pure Python."""


NO_INDEX: Final = ("error sending request", "dns error", "Failed to fetch", "client error (Connect)")
"""What uv says where the network or the index is out of reach. Nothing can be installed there."""


def uv(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run uv with what pip's variables say; its output is the error where it fails."""
    variables = dict(os.environ)
    for ours, theirs in SETTINGS_OF_PIP.items():
        if ours in os.environ:
            variables.setdefault(theirs, os.environ[ours])
    command = [sys.executable, "-m", "uv", *map(str, arguments)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode and any(sign in done.stderr for sign in NO_INDEX):
        pytest.skip(f"uv reaches no package index: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that this tree builds."""
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of constraints that names the release of torch that runs these tests.

    A newer one may bring gigabytes of CUDA libraries.
    """
    path = tmp_path_factory.mktemp("constraints") / "torch.txt"
    path.write_text(f"torch=={version('torch').partition('+')[0]}\n")
    return path


@pytest.fixture(scope="session")
def environment(
    wheel: Path, installed_torch: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Path]]:
    """Give the interpreter of a new environment with `intaglio[EXTRAS]` from the wheel, and nothing else.

    Every caller that names the same extras gets the same environment, so leave it as it is. Packages come as
    wheels only.
    """
    made: dict[str, Path] = {}

    def make(extras: str) -> Path:
        if extras not in made:
            folder = tmp_path_factory.mktemp("environment")
            uv("venv", "--quiet", "--python", sys.executable, folder)
            python = folder / "bin/python"
            constraint = ("--constraint", installed_torch)
            requirement = f"intaglio[{extras}] @ {wheel.as_uri()}"
            uv("pip", "install", "--quiet", "--python", python, *constraint, *WHEELS_ONLY, requirement)
            made[extras] = python
        return made[extras]

    yield make
    for python in made.values():
        shutil.rmtree(python.parents[1])
