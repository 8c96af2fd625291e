"""The repository of one server's Triton is written where it must be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from intaglio.builds.holds import BuildHold
from intaglio.errors import EngineMismatch, Unavailable
from intaglio.serving.versions import REPOSITORY, ServedRepository, ServedVersion, read_version

from .conftest import contents, make_manifest


def test_a_restart_needs_no_room(
    tmp_path: Path, versions: Callable[[int], ServedVersion], full_disk: Callable[[], None]
) -> None:
    repository, first, second = ServedRepository(tmp_path / "served"), versions(1), versions(2)
    repository.start_with(first)
    before = contents(repository.folder)
    repository.add(second)
    full_disk()
    repository.start_with(first)
    assert contents(repository.folder) == before
    with pytest.raises(Unavailable, match="served: the disk is full"):
        repository.start_with(second)


def test_public_models_come_after_the_stages_that_they_call(
    tmp_path: Path, versions: Callable[[int], ServedVersion]
) -> None:
    repository, first, second = ServedRepository(tmp_path / "served"), versions(1), versions(2)
    assert first.public == ("sdxl", "sdxl_stream")
    assert first.stages == ("diffuse", "annotate", "identity", "postprocess", "preprocess")
    assert first.callers == ("sdxl_stream",)
    repository.start_with(first)
    repository.choose(second)
    text = (repository.folder / "sdxl/config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert {step.model_version for step in config.ensemble_scheduling.step} == {2}
    text = (repository.folder / "sdxl_stream/config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert list(config.version_policy.specific.versions) == [2], "its stages are those of its own version"


def test_a_repository_of_another_build_is_refused(
    tmp_path: Path, versions: Callable[[int], ServedVersion]
) -> None:
    versions(1)
    folder, manifest = tmp_path / "build1", make_manifest("f" * 64)
    assert (folder / REPOSITORY).is_dir()
    with pytest.raises(EngineMismatch, match="written for build 000000000000"):
        read_version(folder, manifest, number=1, hold=BuildHold(folder, manifest))
