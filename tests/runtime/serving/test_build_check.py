"""Builds that must not be served are refused by the look of their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.builds.file_checks import file_digest
from intaglio.builds.manifest import write_manifest
from intaglio.contract.config import Deployment, load_deployment
from intaglio.errors import EngineMismatch
from intaglio.serving.build_check import check_build
from intaglio.serving.versions import REPOSITORY

from .conftest import PLATE, make_manifest


@pytest.fixture
def built(tmp_path: Path) -> Deployment:
    """A deployment with a build of one file."""
    (tmp_path / "plate.yaml").write_text(PLATE)
    deployment = load_deployment(tmp_path / "plate.yaml")
    folder = deployment.build_folder
    (folder / REPOSITORY).mkdir(parents=True)
    (folder / "merges.txt").write_text("a b")
    files = {"merges.txt": file_digest(folder / "merges.txt")}
    manifest = make_manifest("0" * 64)
    write_manifest(folder, manifest.model_copy(update={"config_digest": deployment.digest, "files": files}))
    return deployment


def test_a_whole_build(built: Deployment) -> None:
    assert list(check_build(built).listed) == ["merges.txt"]


def test_what_is_wrong_is_named_with_the_command(built: Deployment) -> None:
    other = built.model_copy(update={"verify_tolerance": 0.5})
    with pytest.raises(EngineMismatch, match=r"another configuration than plate\.yaml"):
        check_build(other)
    (built.build_folder / "merges.txt").write_text("longer")
    with pytest.raises(
        EngineMismatch, match=r"merges.txt has 6 bytes, not 3; rebuild with: intaglio build .*plate\.yaml"
    ):
        check_build(built)
    (built.build_folder / "merges.txt").write_text("b a")
    assert check_build(built), "only sizes are compared here"
    (built.build_folder / REPOSITORY).rmdir()
    with pytest.raises(EngineMismatch, match="model_repository is missing"):
        check_build(built)
