"""Builds for servers that no Triton runs, and a temporary folder of their own."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from intaglio.builds.holds import BuildHold
from intaglio.builds.manifest import BuildManifest
from intaglio.contract.architecture import Architecture, Residual
from intaglio.contract.config import Defaults, Execution, Limits, Profiles
from intaglio.serving import versions as versioning
from intaglio.serving.versions import ServedVersion, read_version
from intaglio.serving.workspace import Workspace
from intaglio_export.deployment.repository import REPOSITORY, RepositoryOptions, write_repository

PLATE = "{base: [{folder: base}], profiles: {sizes: [[64, 64]]}, build: build}"
"""A deployment."""
RESIDUAL = Residual(channels=8, scale=1)


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that others run on this machine are not ours to look at."""
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    owned = Workspace.create()
    yield owned
    owned.remove()


def make_manifest(key: str) -> BuildManifest:
    """The manifest of a build without files."""
    return BuildManifest(
        key=key,
        config_digest=key,
        rebuild="intaglio build x.yaml",
        base="x",
        architecture=Architecture(
            latent_channels=3,
            vae_scale=1,
            tokens=77,
            text_width=8,
            text_width_2=8,
            text_layers=2,
            pooled_width=8,
            time_ids=6,
            down_residuals=(RESIDUAL,),
            mid_residual=RESIDUAL,
            attentions=(),
            control_attentions=(),
        ),
        scheduler={},
        scaling_factor=1.0,
        force_zeros_for_empty_prompt=True,
        precision="fp32",
        runtime="onnxruntime",
        target="cpu",
        versions={},
        profiles=Profiles(sizes=((64, 64),)),
        limits=Limits(),
        defaults=Defaults(),
        execution=Execution(),
        networks={},
        controlnets={},
        loras=(),
        tokenizers=("a", "b"),
        poses=None,
        files={},
    )


@pytest.fixture
def versions(tmp_path: Path) -> Callable[[int], ServedVersion]:
    """Number -> a version of that number, of a build of its own."""

    def make(number: int) -> ServedVersion:
        folder, key = tmp_path / f"build{number}", f"{number:064x}"
        options = RepositoryOptions(build_key=key, queue_size=4, workers=1)
        write_repository(folder / REPOSITORY, options)
        manifest = make_manifest(key)
        return read_version(folder, manifest, number=number, hold=BuildHold(folder, manifest))

    return make


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called, no file can be written any more."""

    def fill() -> None:
        def fail(path: Path, _: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        monkeypatch.setattr(versioning, "write_whole", fail)
        monkeypatch.setattr("intaglio.builds.manifest.write_whole", fail)

    return fill


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
