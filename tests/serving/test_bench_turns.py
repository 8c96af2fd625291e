"""The gate on real servers sees a slower loop and worse pictures, and nothing where there is nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from intaglio.contract.config import Deployment
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server

from .conftest import REPOSITORY

pytestmark = pytest.mark.long
WORKLOAD = REPOSITORY / "benchmarks/workloads/miniature.yaml"
CLEAN_REPEATS = 3
SLOWER_LOOP = """
import time

from intaglio.stages.diffuse import denoise

_steps = denoise.Denoiser.__call__


def slower(self, *arguments, **options):
    before = time.process_time()
    state = _steps(self, *arguments, **options)
    until = time.process_time() + 0.15 * (time.process_time() - before)
    while time.process_time() < until:
        pass
    return state


denoise.Denoiser.__call__ = slower
"""
WORSE_PICTURES = """
from intaglio.stages.diffuse import denoise

_steps = denoise.Denoiser.__call__
denoise.Denoiser.__call__ = lambda *arguments, **options: _steps(*arguments, **options) * 1.01
"""


def environment_with(folder: Path, source: str) -> Path:
    """The `bin` of an environment like this one, whose interpreters run `source` when they start."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    (own,) = (path for path in map(Path, sys.path) if path.name == "site-packages")
    (packages / "planted.py").write_text(source)
    (packages / "planted.pth").write_text(f"import site; site.addsitedir({str(own)!r}); import planted\n")
    return folder / "bin"


@pytest.fixture
def served(miniature: Deployment, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Start a server of the miniature with a change planted in it; returns its address."""
    with ExitStack() as stack:

        def start(source: str) -> str:
            number = len(list(tmp_path.glob("*.log")))
            planted = environment_with(tmp_path / f"environment-{number}", source)
            server = Server(miniature, endpoints=Endpoints(), log=tmp_path / f"{number}.log")
            (tmp_path / f"{number}.log").touch()
            path = os.pathsep.join([str(planted), os.environ["PATH"]])
            changed = {**server.settings.environment, "PATH": path}
            server.settings = dataclasses.replace(server.settings, environment=changed)
            return stack.enter_context(server).grpc_url

        yield start


def judged(first: str, second: str, *options: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "intaglio", "bench", "turns", str(WORKLOAD), "--load", "loop", "--json"]
    command += ["--a", first, "--b", second, "--turns", "12", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_slower_loop_is_seen_and_equal_servers_are_not(
    served: Callable[[str], str], server: Server
) -> None:
    slow = served(SLOWER_LOOP)
    code, found = judged(server.grpc_url, slow)
    assert (code, found["verdict"]) == (1, "slower"), found
    assert 1.05 < found["ratio"] < 1.25, found
    assert found["differing"] == 0
    clean = served("")
    for _ in range(CLEAN_REPEATS):
        code, found = judged(server.grpc_url, clean, "--same-pictures")
        assert (code, found["verdict"]) == (0, "no difference shown"), found


def test_worse_pictures_are_seen(served: Callable[[str], str], server: Server) -> None:
    worse = served(WORSE_PICTURES)
    code, found = judged(server.grpc_url, worse, "--same-pictures")
    assert (code, found["differing"]) == (1, found["pictures"])
