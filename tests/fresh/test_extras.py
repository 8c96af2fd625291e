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
EXTRAS = sorted(set(PROJECT["optional-dependencies"]) - {"audit", "dev", "fuzz", "ship"})
IMPORT_ALL = """
import importlib, pkgutil, sys
packages, modules = (words.split(",") for words in sys.argv[1:])
for package in packages:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.endswith(".__main__"):  # which runs a command
            modules.append(module.name)
for module in modules:
    importlib.import_module(module)
"""
MODULES = {
    "bench": ["matplotlib.pyplot"],
    "c2pa": ["c2pa"],
    "client": ["tritonclient.grpc"],
    "controlnet-aux": ["controlnet_aux"],
    "data": ["ijson"],
    "export": ["diffusers", "onnx", "transformers"],
    "serve": ["cv2", "onnxruntime", "psutil", "tokenizers"],
    "tensorrt": ["cuda.bindings.runtime", "tensorrt_rtx"],
    "traces": ["opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk.trace"],
    "torch": ["accelerate", "peft", "torch"],
    "train": ["tensorboard"],
    "triton": ["pytriton"],
    "video": ["ffmpeg", "imageio_ffmpeg"],
    "wandb": ["wandb"],
}
"""What each extra is there for."""
NEWEST = "bench,c2pa,client,data,export,serve,tensorrt,torch,traces,train,video,wandb"
"""Extras that take the newest numpy."""
PACKAGED = "bench,client,serve,traces,triton,video"
"""Extras that take the numpy of the packaged Triton."""
RESOLVED_ONLY = "controlnet-aux"
"""Extras whose torchvision does not work with the torch that is installed here, a build for the CPU."""
PACKAGES = {
    NEWEST: "intaglio,intaglio_client,intaglio_export,intaglio_train",
    PACKAGED: "intaglio,intaglio_client",
}
"""Ours, by extras."""


def test_every_extra_is_tried() -> None:
    tried = {*NEWEST.split(","), *PACKAGED.split(","), RESOLVED_ONLY}
    assert sorted(MODULES) == EXTRAS == sorted(tried)


@pytest.mark.parametrize("extras", [NEWEST, PACKAGED])
def test_every_module_imports(environment: Callable[[str], Path], extras: str) -> None:
    modules = [module for extra in extras.split(",") for module in MODULES[extra]]
    command = [environment(extras), "-c", IMPORT_ALL, PACKAGES[extras], ",".join(modules)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extras", [NEWEST, PACKAGED, RESOLVED_ONLY])
def test_every_extra_resolves_to_wheels(
    wheel: Path, installed_torch: Path, tmp_path: Path, python: str, extras: str
) -> None:
    requirement = tmp_path / "requirement.in"
    requirement.write_text(f"intaglio[{extras}] @ {wheel.as_uri()}\n")
    place = ("--python-version", python, "--python-platform", "x86_64-manylinux_2_35")
    uv("pip", "compile", "--quiet", *place, "--constraint", installed_torch, *WHEELS_ONLY, requirement)
