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

from intaglio.contract.config import Deployment, load_deployment
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server

from .conftest import fused_build

pytestmark = pytest.mark.long
WORKLOAD = """
about: the loop of steps
requests: {long: {prompts: [a person], inputs: {width: 128, height: 128, steps: 40}}}
loads: {loop: {kind: closed, concurrency: [1], requests: 1, mix: {long: 1}}}
"""
CLEAN_REPEATS = 2
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


@pytest.fixture(scope="module")
def one_thread(miniature: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """A build whose networks run in one thread. Threads that wait for each other spin, the longer the busier
    the machine is, and that is processor time, too.
    """
    folder = tmp_path_factory.mktemp("one-thread")
    fused_build(miniature, folder, {}, execution={"threads": 1})
    return load_deployment(folder / "fused.yaml")


@pytest.fixture
def served(one_thread: Deployment, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Start a server with a change planted in it; returns its address."""
    with ExitStack() as stack:

        def start(source: str) -> str:
            number = len(list(tmp_path.glob("*.log")))
            planted = environment_with(tmp_path / f"environment-{number}", source)
            server = Server(one_thread, endpoints=Endpoints(), log=tmp_path / f"{number}.log")
            (tmp_path / f"{number}.log").touch()
            path = os.pathsep.join([str(planted), os.environ["PATH"]])
            changed = {**server.settings.environment, "PATH": path}
            server.settings = dataclasses.replace(server.settings, environment=changed)
            return stack.enter_context(server).grpc_url

        yield start


def judged(folder: Path, first: str, second: str, *options: str) -> tuple[int, dict[str, Any]]:
    (folder / "loop.yaml").write_text(WORKLOAD)
    command = [sys.executable, "-m", "intaglio", "bench", "turns", "loop.yaml", "--json", "--turns", "24"]
    command += ["--a", first, "--b", second, *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_the_gate_sees_what_was_planted_and_nothing_else(
    served: Callable[[str], str], tmp_path: Path
) -> None:
    first, second, slow, worse = (served(planted) for planted in ("", "", SLOWER_LOOP, WORSE_PICTURES))
    code, found = judged(tmp_path, first, slow)
    assert (code, found["verdict"]) == (1, "slower"), found
    assert 1.05 < found["ratio"] < 1.25, found
    assert found["differing"] == 0
    code, found = judged(tmp_path, first, worse, "--same-pictures", "--turns", "8")
    assert (code, found["differing"]) == (1, found["pictures"])
    for _ in range(CLEAN_REPEATS):
        code, found = judged(tmp_path, first, second, "--same-pictures")
        assert (code, found["verdict"], found["differing"]) == (0, "no difference shown", 0), found
