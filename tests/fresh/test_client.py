"""The client's wheel beside the newest numpy and pillow: its size, its import, a picture from a server."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import PIL.Image
import pytest

from intaglio.contract.config import load_deployment
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server

from .conftest import ROOT

pytestmark = pytest.mark.fresh

LARGEST: Final = 90e6
"""Bytes that the client may add to an environment with numpy and pillow."""
SLOWEST: Final = 2.5
"""The client's import, in imports of numpy and tritonclient; 2.1 was measured."""
TRIES: Final = 5
SIZES = """
import importlib.metadata, json
sizes = {}
for package in importlib.metadata.distributions():
    paths = [file.locate() for file in package.files or ()]
    sizes[package.name] = sum(path.stat().st_size for path in paths if path.is_file())
print(json.dumps([sizes, {name: importlib.metadata.version(name) for name in sizes}]))
"""
GENERATE = """
import sys
from intaglio_client import Client
with Client(sys.argv[1]) as client:
    client.generate("mara waving on a beach", pose="waving-01", seed=7, steps=2).save(sys.argv[2])
"""


@pytest.fixture(scope="module")
def client(environment: Callable[[str], Path]) -> Path:
    """The interpreter of an environment with the client."""
    return environment("client")


def output_of(python: Path, code: str, *arguments: str) -> str:
    done = subprocess.run([python, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_small_beside_numpy_2_and_the_newest_pillow(client: Path) -> None:
    sizes, versions = json.loads(output_of(client, SIZES))
    assert int(versions["numpy"].partition(".")[0]) >= 2
    assert {"torch", "tokenizers", "huggingface-hub", "nvidia-pytriton"}.isdisjoint(sizes)
    added = {name: size for name, size in sizes.items() if name not in ("numpy", "pillow")}
    assert sum(added.values()) <= LARGEST, sorted(added.items(), key=lambda item: -item[1])


def seconds_to_import(python: Path, modules: str) -> float:
    """Of processor time, the least of several tries; a process that imports nothing is taken off."""

    def least(code: str) -> float:
        found = []
        for _ in range(TRIES):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            output_of(python, code)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(found)

    return least(f"import {modules}") - least("pass")


def test_its_import_costs_little_more_than_what_it_needs(client: Path) -> None:
    needed = seconds_to_import(client, "numpy, tritonclient.grpc")
    ours = seconds_to_import(client, "intaglio_client")
    assert ours <= SLOWEST * needed, f"{ours:.3f} s; numpy and tritonclient.grpc {needed:.3f} s"


@pytest.mark.parametrize("command", ["generate", "watch", "rollback", "doctor"])
def test_its_commands_need_no_other_extra(client: Path, command: str) -> None:
    done = subprocess.run(
        [client.parent / "intaglio", command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The miniature, served by the environment of these tests."""
    config = ROOT / "configs/miniature.yaml"
    subprocess.run([sys.executable, "-m", "intaglio", "build", config], check=True, stdout=subprocess.DEVNULL)
    with Server(load_deployment(config), endpoints=Endpoints()) as server:
        yield server


def test_it_generates(client: Path, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    output_of(client, GENERATE, server.grpc_url, str(path))
    assert PIL.Image.open(path).getextrema() != ((0, 0),) * 3
