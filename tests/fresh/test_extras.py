"""Every extra from wheels: installed and imported on this Python, resolved for the others."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT, WHEELS_ONLY, uv

pytestmark = pytest.mark.fresh

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = "Programming Language :: Python :: 3."
PYTHONS = [
    one.rpartition(" ")[2]
    for one in PROJECT["classifiers"]
    if one.startswith(VERSION) and one.removeprefix(VERSION).isdigit()
]
EXTRAS = sorted(set(PROJECT["optional-dependencies"]) - {"dev"})
IMPORT_ALL = """
import importlib, pkgutil, sys
for package in ("intaglio", "intaglio_client", "intaglio_export", "intaglio_train"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if module.name != "intaglio.__main__":
            importlib.import_module(module.name)
for module in sys.argv[1:]:
    importlib.import_module(module)
"""
MODULES = {
    "client": ["tritonclient.grpc"],
    "export": ["diffusers", "onnx", "transformers"],
    "serve": ["cv2", "onnxruntime", "psutil", "tokenizers"],
    "tensorrt": ["cuda.bindings.runtime", "tensorrt_rtx"],
    "torch": ["accelerate", "peft", "torch"],
    "train": ["tensorboard"],
    "triton": ["pytriton"],
}
"""What each extra is there for."""


def test_every_extra_is_tried() -> None:
    assert sorted(MODULES) == EXTRAS


@pytest.mark.parametrize(
    "extras", ["client,export,serve,tensorrt,torch,train", "client,export,serve,train,triton"]
)
def test_every_module_imports(environment: Callable[[str], Path], extras: str) -> None:
    """The first set has the newest numpy; the packaged Triton needs an older one."""
    modules = [module for extra in extras.split(",") for module in MODULES[extra]]
    python = environment(extras)
    done = subprocess.run(
        [python, "-c", IMPORT_ALL, *modules], capture_output=True, text=True, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("python", PYTHONS)
def test_every_extra_resolves_to_wheels(
    wheel: Path, installed_torch: Path, tmp_path: Path, python: str
) -> None:
    """Extra by extra: an application takes one or two of them."""
    for extra in EXTRAS:
        requirement = tmp_path / f"{extra}.in"
        requirement.write_text(f"intaglio[{extra}] @ {wheel.as_uri()}\n")
        place = ("--python-version", python, "--python-platform", "x86_64-manylinux_2_35")
        uv("pip", "compile", "--quiet", *place, "--constraint", installed_torch, *WHEELS_ONLY, requirement)
