"""Tokenizers and poses: named by their content, so a server of an earlier build keeps its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from intaglio.contract.config import Deployment, load_deployment
from intaglio.errors import ConfigError
from intaglio_export.deployment.support_files import SupportFiles, find_support_files
from intaglio_export.plan.digests import DigestCache
from intaglio_export.weights.sources import find_base

from ...checkpoint import Checkpoint
from ..conftest import write_config


def found(deployment: Deployment, folder: Path) -> SupportFiles:
    return find_support_files(deployment, find_base(deployment.base), DigestCache(folder / "digests.json"))


def test_every_file_has_a_place_of_its_content(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(checkpoint.base, base)
    poses = tmp_path / "poses"
    poses.mkdir()
    (poses / "wave.json").write_text("{}")
    (poses / "notes.txt").write_text("not a pose")
    config = write_config(
        tmp_path / "a.yaml", checkpoint, base={"folder": "base"}, poses="poses", fuse={}, loras={}
    )
    deployment = load_deployment(config)
    before = found(deployment, tmp_path)
    assert before.poses is not None
    assert f"{before.poses}/wave.json" in before.sources
    assert not any(name.endswith("notes.txt") for name in before.sources)
    for folder, name in zip(before.tokenizers, ("tokenizer", "tokenizer_2"), strict=True):
        assert folder.endswith(f"/{name}")
        assert before.sources[f"{folder}/vocab.json"] == base / name / "vocab.json"
    (poses / "wave.json").write_text("[]")
    (base / "tokenizer/vocab.json").write_text("{}")
    after = found(deployment, tmp_path)
    assert after.poses != before.poses
    assert set(after.tokenizers).isdisjoint(before.tokenizers)


def test_no_poses(checkpoint: Checkpoint, tmp_path: Path) -> None:
    deployment = load_deployment(write_config(tmp_path / "a.yaml", checkpoint, fuse={}))
    assert found(deployment, tmp_path).poses is None


def test_a_folder_of_poses_that_is_missing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    deployment = load_deployment(write_config(tmp_path / "a.yaml", checkpoint, fuse={}, poses="nowhere"))
    with pytest.raises(ConfigError, match=r"poses: .*nowhere: no such folder"):
        found(deployment, tmp_path)


def test_detectors_have_a_place_of_their_content(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_text(name)
    detectors = {
        "pose": {"kind": "movenet", "file": "a/model.onnx", "persons": "b/model.onnx"},
        "depth": {"kind": "depth", "file": "midas.onnx"},
    }
    config = write_config(tmp_path / "a.yaml", checkpoint, fuse={}, detectors=detectors)
    support = found(load_deployment(config), tmp_path)
    places = support.detectors["pose"].named
    assert not any(path.is_absolute() for path in places.values())
    assert [support.sources[str(path)].parent.name for path in places.values()] == ["a", "b"]
    assert support.detectors["depth"].file == tmp_path / "midas.onnx", "it is missing, and stays where it is"
    assert not any(name.endswith("midas.onnx") for name in support.sources)


def test_a_folder_of_weights_keeps_its_names(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/ControlNetHED.pth").write_text("weights")
    (tmp_path / "weights/another.pth").write_text("not needed")
    detectors = {"hed": {"kind": "controlnet-aux", "detector": "hed", "folder": "weights"}}
    config = write_config(tmp_path / "a.yaml", checkpoint, fuse={}, detectors=detectors)
    support = found(load_deployment(config), tmp_path)
    (place,) = support.detectors["hed"].files
    assert support.sources[str(place)] == tmp_path / "weights/ControlNetHED.pth"
    assert not any("another" in name for name in support.sources)


def test_weights_of_the_hub(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a hub the detector stays as it is, and a build goes on."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    detectors = {"hed": {"kind": "controlnet-aux", "detector": "hed", "hub": "owner/absent"}}
    config = write_config(tmp_path / "a.yaml", checkpoint, fuse={}, detectors=detectors)
    assert found(load_deployment(config), tmp_path).detectors["hed"].hub == "owner/absent"
    assert "detector of hub:owner/absent" in caplog.text


def test_what_reads_faces_has_a_place_and_characters_have_none(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """No build holds an embedding."""
    for name in ("find.onnx", "embed.onnx"):
        (tmp_path / name).write_text(name)
    (tmp_path / "characters").mkdir()
    (tmp_path / "characters/ann.json").write_text("secret")
    faces = {
        "characters": "characters",
        "detector": "find.onnx",
        "recognition": "embed.onnx",
        "threshold": 0.4,
    }
    config = write_config(tmp_path / "a.yaml", checkpoint, fuse={}, identity=faces)
    support = found(load_deployment(config), tmp_path)
    assert support.identity is not None
    for path in support.identity.named.values():
        assert support.sources[str(path)] == tmp_path / path.name
    assert support.identity.characters == tmp_path / "characters"
    assert not any("characters" in name for name in support.sources)
    (tmp_path / "embed.onnx").unlink()
    missing = found(load_deployment(config), tmp_path)
    assert missing.identity is not None
    assert missing.identity.recognition == tmp_path / "embed.onnx", "it stays where it is missing"
    assert not any("find.onnx" in name for name in missing.sources)
