"""Which detector a type means, and when its version changes."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import pytest

from intaglio.contract.detectors import DetectorSource
from intaglio.detectors import opening
from intaglio.detectors.canny import CannyDetector
from intaglio.detectors.opening import choose_detector
from intaglio.detectors.pose import PoseDetector
from intaglio.errors import ConfigError, InvalidRequest


def test_an_id_comes_before_a_type(pose_source: DetectorSource) -> None:
    alone = pose_source.model_copy(update={"persons": None})
    detectors = {"people": pose_source, "pose": alone}
    assert choose_detector("pose", detectors).name == "pose"
    assert choose_detector("people", detectors).type == "pose"
    assert choose_detector("pose", {"people": pose_source}).name == "people"
    assert isinstance(choose_detector("pose", detectors).open(), PoseDetector)


def test_canny_needs_no_deployment() -> None:
    assert isinstance(choose_detector("canny", {}).open(), CannyDetector)


def test_an_unknown_type_is_answered_with_those_there_are(pose_source: DetectorSource) -> None:
    with pytest.raises(
        InvalidRequest, match="no detector 'depth'; allowed: canny, people, pose; its key `detectors`"
    ):
        choose_detector("depth", {"people": pose_source})


def test_missing_weights_are_named(pose_source: DetectorSource, tmp_path: Path) -> None:
    absent = pose_source.model_copy(update={"persons": tmp_path / "nanodet.onnx"})
    with pytest.raises(ConfigError, match=r"detectors\.pose: .*nanodet\.onnx: no such file; put the file"):
        choose_detector("pose", {"pose": absent})


def test_the_version_follows_the_package_that_makes_the_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    source = DetectorSource.model_validate({"kind": "controlnet-aux", "detector": "lineart-standard"})
    versions = set()
    for number in ("0.0.9", "0.0.10"):
        monkeypatch.setattr(importlib.metadata, "version", lambda package, number=number: number)
        opening._package_version.cache_clear()
        versions.add(choose_detector("lineart", {"lineart": source}).version)
    opening._package_version.cache_clear()
    assert len(versions) == 2


def test_the_version_follows_files_and_settings_but_not_places(
    pose_source: DetectorSource, tmp_path: Path
) -> None:
    def version(source: DetectorSource) -> str:
        return choose_detector("pose", {"pose": source}).version

    first = version(pose_source)
    elsewhere = Path(shutil.copy(pose_source.file, tmp_path / "other.onnx"))
    assert version(pose_source.model_copy(update={"file": elsewhere})) == first
    assert version(pose_source.model_copy(update={"persons": None})) != first
    assert version(pose_source.model_copy(update={"size": 28})) != first
    with elsewhere.open("ab") as file:
        file.write(b"\0")
    assert version(pose_source.model_copy(update={"file": elsewhere})) != first
