"""docker/Dockerfile: linted, built, and what is in the image."""

from __future__ import annotations

import json
import os
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from intaglio.serving.health import PATH

from .cluster import pod_of
from .containers import Container, Image
from .package_index import PackageIndex
from .tools import ROOT, output_of, program

pytestmark = pytest.mark.ship

DOCKERFILE = ROOT / "docker/Dockerfile"
MEBIBYTE = 1 << 20
LARGEST = 2300 * MEBIBYTE
"""Of the CPU demo with PyTorch, which builds; 2.05 GB was measured."""


def test_hadolint_has_nothing_to_say() -> None:
    output_of(program("hadolint", "the extra `ship`"), DOCKERFILE)


def test_hadolint_finds_a_planted_fault(tmp_path: Path) -> None:
    planted = tmp_path / "Dockerfile"
    planted.write_text(DOCKERFILE.read_text().replace("USER 1000:1000", "USER root"))
    with pytest.raises(AssertionError, match="DL3002"):
        output_of(program("hadolint", "the extra `ship`"), planted)


def test_it_runs_as_a_user_and_says_how_it_is_checked(image: Image) -> None:
    config = image.config
    assert config["User"] == "1000:1000"
    assert config["Entrypoint"] == ["intaglio"]
    assert config["StopSignal"] == "SIGTERM"
    assert sorted(config["ExposedPorts"]) == ["8000/tcp", "8001/tcp", "8002/tcp"]
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "-m", "intaglio.serving.health"]
    assert PATH == "/v2/models/sdxl/versions/1/ready"
    assert not config["Volumes"], "a volume that nobody asked for would be left behind"


def test_no_build_tool_and_no_source_is_in_it(image: Image) -> None:
    for name in ("pip", "pip3", "gcc", "cc", "make", "git", "uv"):
        found = [
            folder
            for folder in ("opt/intaglio/bin", "usr/bin", "usr/local/bin")
            if (image.root / folder / name).exists()
        ]
        assert not found, f"{name} is in {found}"
    packages = image.root / "opt/intaglio/lib/python3.11/site-packages"
    assert not list(packages.glob("pip-*"))
    assert not (image.root / "src").exists()
    assert not (image.root / "wheels").exists()


def test_nothing_of_it_belongs_to_its_user(image: Image) -> None:
    for place in ("opt/intaglio", "srv"):
        owners = {path.lstat().st_uid for path in (image.root / place).rglob("*")}
        assert owners == {0}


def test_the_package_index_of_this_machine_is_not_in_it(image: Image, index: PackageIndex) -> None:
    packages = image.root / "opt/intaglio/lib/python3.11/site-packages"
    texts = {"history": image.history, "sbom": sbom_text(image)}
    texts |= {str(path): path.read_text() for path in packages.glob("*.dist-info/direct_url.json")}
    assert not [(name, word) for name, text in texts.items() for word in index.secrets if word in text]
    assert not (image.root / "run/secrets").exists()
    assert not (image.root / "etc/pip.conf").exists()


def sbom_text(image: Image) -> str:
    return (image.root / "usr/share/doc/intaglio/sbom.cdx.json").read_text()


def test_the_bill_of_materials_has_every_package(image: Image) -> None:
    packages = image.root / "opt/intaglio/lib/python3.11/site-packages"
    installed = {
        path.name.removesuffix(".dist-info").split("-")[0].lower() for path in packages.glob("*.dist-info")
    }
    bill = json.loads(sbom_text(image))
    assert bill["bomFormat"] == "CycloneDX"
    listed = {part["name"].lower().replace("-", "_").replace(".", "_") for part in bill["components"]}
    assert {name.replace(".", "_") for name in installed} == listed
    versions = {part["name"].lower(): part["version"] for part in bill["components"]}
    assert versions["numpy"] == version("numpy")
    assert versions["intaglio"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_its_size_is_bounded(image: Image) -> None:
    size = sum(
        path.lstat().st_size for path in image.root.rglob("*") if path.is_file() and not path.is_symlink()
    )
    assert size < LARGEST, f"{size / MEBIBYTE:.0f} MiB"


def test_it_draws_the_demo_with_a_root_that_cannot_be_written(
    image: Image, demo: list[dict[str, Any]], volumes: dict[str, Path], tmp_path: Path
) -> None:
    """`docker run IMAGE`, with two folders to write to. Nothing outside these two is written."""
    pod = json.loads(json.dumps(pod_of(demo, "Job")))
    mounts = pod["containers"][0]["volumeMounts"]
    mounts.append({"name": "out", "mountPath": "/srv/out"})
    pod["volumes"].append({"name": "out", "persistentVolumeClaim": {"claimName": "out"}})
    folders = {name: tmp_path / name for name in ("builds", "out")}
    for folder in folders.values():
        folder.mkdir()
        os.chown(folder, 1000, 1000)
    sources = {**volumes, **folders}
    command = image.config["Cmd"]
    with Container(
        image=image, folder=tmp_path / "bundle", pod=pod, sources=sources, args=command
    ) as container:
        assert container.wait(300) == 0, container.output
    assert (folders["out"] / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert "stop Triton" in container.output
