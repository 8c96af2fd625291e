"""Files of the last landed version: each is recognised. Those of a later one are refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from intaglio.builds.manifest import read_manifest
from intaglio.builds.published_presets import PublishedPresets
from intaglio.detectors.cache import DetectionCache, detection_key
from intaglio.errors import ConfigError, EngineMismatch, IntaglioError
from intaglio.faces.enrolled import EnrolledFolder
from intaglio.loras.store import LoraStore
from intaglio.stored_versions import version_problem
from intaglio.triton_models.served_build import read_served_build
from intaglio_client.batch.combining import items_of
from intaglio_client.batch.folder import BatchFolder
from intaglio_client.batch.spec import read_spec
from intaglio_export.plan.records import read_record
from intaglio_train.checkpoint import Checkpoints
from intaglio_train.errors import CheckpointError

BEFORE = Path(__file__).parent / "before"
IDENTITY = {"rank": 4, "data set": ["0" * 64], "model": "1" * 64}
SAYS = "another version of intaglio wrote it: schema_version is 2, this version reads 1"


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(BEFORE, tmp_path / "stored")
    (tmp_path / "stored/characters").chmod(0o700)
    (tmp_path / "stored/characters/ann.json").chmod(0o600)
    return tmp_path / "stored"


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def read_batch(folder: Path) -> Any:
    spec = read_spec(folder / "batch.yaml")
    items = items_of(spec, folder / "batch.yaml")
    with BatchFolder.opened(folder / "batch", spec) as opened:
        return opened.begin(items), [opened.is_whole(record) for record in opened.manifest.read()]


def test_everything_of_before_is_read(stored: Path) -> None:
    manifest = read_manifest(stored)
    assert {"unet", "vae_decoder", "controlnet.pose"} <= set(manifest.networks)
    assert "night" in LoraStore(stored / "loras").current().loras
    assert PublishedPresets(stored).current().quality
    record = read_record(stored / "stage")
    assert record is not None
    assert record.files
    assert len(EnrolledFolder(stored / "characters").read("ann").embeddings[0]) == 128
    kept = DetectionCache(stored / "detections").get(detection_key(b"a photograph", "canny-1"))
    assert kept is not None
    assert kept.map.shape == (4, 4, 3)
    state = Checkpoints(stored / "checkpoints", keep=1).load(IDENTITY, torch.device("cpu"))
    assert state is not None
    assert state["step"] == 3
    records, whole = read_batch(stored)
    assert [record["file"] for record in records] == ["000000.png", "000001.png"]
    assert whole == [True, True], "the batch goes on where it was, and draws nothing again"


def test_a_repository_of_another_build_is_refused(stored: Path) -> None:
    """Triton's models compare the key in their configuration with that of the build beside it."""
    model = stored / "model_repository/diffuse"
    text = (model / "config.pbtxt").read_text()
    key = text.partition('key: "build_key"')[2].partition('string_value: "')[2].partition('"')[0]
    config = {"parameters": {"build": {"string_value": "../.."}, "build_key": {"string_value": key}}}
    arguments = {"model_config": json.dumps(config), "model_repository": str(model)}
    assert read_served_build(arguments)[0].key == key
    changed(stored / "manifest.json", key="0" * 64)
    with pytest.raises(EngineMismatch, match="the model repository was written for build"):
        read_served_build(arguments)


@pytest.mark.parametrize(
    ("file", "read", "right"),
    [
        ("manifest.json", read_manifest, "rebuild with: intaglio build configs/miniature.yaml"),
        (
            "loras/registry.json",
            lambda path: LoraStore(path / "loras").current(),
            "remove it and run intaglio build",
        ),
        ("presets.json", lambda path: PublishedPresets(path).current(), "intaglio build writes it again"),
        (
            "characters/ann.json",
            lambda path: EnrolledFolder(path / "characters").read("ann"),
            "enroll ann again",
        ),
        ("batch/batch.json", read_batch, "take another folder"),
    ],
)
def test_a_file_of_a_later_version_is_refused_by_name(stored: Path, file: str, read: Any, right: str) -> None:
    changed(stored / file, schema_version=2)
    with pytest.raises(IntaglioError) as refused:
        read(stored)
    assert file.rpartition("/")[2] in str(refused.value)
    assert SAYS in str(refused.value)
    assert right in str(refused.value)


def test_a_checkpoint_of_a_later_version_is_refused(stored: Path) -> None:
    path = stored / "checkpoints/step-00000003.pt"
    torch.save({**torch.load(path, weights_only=True), "schema_version": 2}, path)
    with pytest.raises(CheckpointError, match=SAYS):
        Checkpoints(path.parent, keep=1).load(IDENTITY, torch.device("cpu"))


def test_a_stage_of_a_later_version_is_made_again(stored: Path) -> None:
    changed(stored / "stage/record.json", schema_version=2)
    assert read_record(stored / "stage") is None


def test_what_is_written_now_says_its_version(stored: Path) -> None:
    (stored / "batch/batch.json").unlink()
    read_batch(stored)
    assert json.loads((stored / "batch/batch.json").read_bytes())["schema_version"] == 1
    saved = Checkpoints(stored / "new", keep=1).save(1, {}, IDENTITY)
    assert torch.load(saved, weights_only=True)["schema_version"] == 1


@pytest.mark.parametrize("version", [0, 2, True, "1", None, [1]])
def test_only_the_version_itself_is_read(version: Any) -> None:
    problem = version_problem({"schema_version": version})
    assert problem is not None
    assert len(problem) < 120
    assert version_problem({}) is None


def test_a_batch_of_other_wishes_is_still_another_batch(stored: Path) -> None:
    text = (stored / "batch.yaml").read_text()
    (stored / "batch.yaml").write_text(text.replace("waving", "sitting"))
    with pytest.raises(ConfigError, match="holds another batch"):
        read_batch(stored)
