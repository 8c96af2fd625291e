"""The rendered Kubernetes objects, the CPU image and the pods of its overlay."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .cluster import CONFIG, config_text, pod_of, rendered
from .containers import Container, Image, Store, StoreUnusable
from .health import wait_until_healthy
from .package_index import PackageIndex, package_index
from .tools import ROOT, need_containers, output_of, program

BASE = "localhost/intaglio-python"
USER = 1000
TAG = "localhost/intaglio:cpu-demo"
KEPT = "INTAGLIO_SHIP_STORE"
"""A variable that names a folder, in which images are kept from one run to the next: only layers that changed
are built again.
"""


@pytest.fixture(scope="session")
def overlays() -> dict[str, list[dict[str, Any]]]:
    """Every overlay's objects."""
    folders = sorted((ROOT / "docker/kubernetes/overlays").iterdir())
    return {folder.name: rendered(folder) for folder in folders}


@pytest.fixture(scope="session")
def index() -> PackageIndex:
    return package_index()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    need_containers()
    program("crun", "Debian's crun")
    program("nsenter", "Debian's util-linux")
    kept = os.environ.get(KEPT)
    folder = Path(kept) if kept else tmp_path_factory.mktemp("store")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        opened = Store(folder)
    except StoreUnusable as error:
        pytest.skip(str(error))
    yield opened
    opened.close()
    if not kept:
        opened.remove()


@pytest.fixture(scope="session")
def base(store: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Debian with its Python, in the place of the image that the Dockerfile names: none can be pulled."""
    tag = f"{BASE}:bookworm"
    if tag not in store.tags():
        debootstrap = program("debootstrap", "Debian's debootstrap")
        folder = tmp_path_factory.mktemp("debian")
        packages = "--include=python3,libpython3.11,ca-certificates"
        try:
            output_of(debootstrap, "--variant=minbase", packages, "bookworm", folder, seconds=600)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"debootstrap makes no Debian on this machine: {error}")
        for leftover in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(folder / leftover)
            (folder / leftover).mkdir()
        store.import_folder(folder, tag)
        shutil.rmtree(folder)
    return tag


@pytest.fixture(scope="session")
def image(store: Store, base: str, index: PackageIndex) -> Image:
    """The CPU demo of docker/Dockerfile, built."""
    name, _, tag = base.rpartition(":")
    extras = "client,serve,triton,export"
    arguments = {"IMAGE": name, "TAG": tag, "EXTRAS": extras}
    store.build(TAG, target="demo", arguments=arguments, index=index)
    return store.open(TAG)


@pytest.fixture(scope="session")
def demo(overlays: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The objects of the overlay that needs no card."""
    return overlays["cpu-demo"]


@pytest.fixture(scope="session")
def volumes(demo: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of each volume of its pods: what the ConfigMap has, and an empty one for builds."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("deployment", "builds")}
    (folders["deployment"] / CONFIG).write_text(config_text(demo))
    os.chown(folders["builds"], USER, USER)
    return folders


@pytest.fixture(scope="session")
def built(
    image: Image,
    demo: list[dict[str, Any]],
    volumes: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The build job has run to its end, in its pod; what it printed."""
    folder = tmp_path_factory.mktemp("job") / "bundle"
    job = pod_of(demo, "Job")
    with Container(image=image, folder=folder, pod=job, sources=volumes, name="build") as container:
        assert container.wait(300) == 0, container.output
        return container.output


@pytest.fixture(scope="session")
def server(
    image: Image,
    demo: list[dict[str, Any]],
    volumes: dict[str, Path],
    built: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Container]:
    """The server's pod, healthy. Its volume of builds is the one that the job wrote, read-only."""
    assert built
    folder = tmp_path_factory.mktemp("server") / "bundle"
    pod = pod_of(demo, "Deployment")
    with Container(image=image, folder=folder, pod=pod, sources=volumes, name="server") as container:
        wait_until_healthy(container)
        yield container
