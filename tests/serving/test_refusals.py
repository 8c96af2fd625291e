"""Builds that must not be served: refused before or while loading, with the reason and the command that
rebuilds.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from intaglio.builds.manifest import read_manifest, write_manifest
from intaglio.contract.config import Deployment
from intaglio.errors import IntaglioError
from intaglio.serving import build_check
from intaglio.serving.endpoints import Endpoints
from intaglio.serving.server import Server
from intaglio.serving.versions import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]


@pytest.fixture
def copied(miniature: Deployment, tmp_path: Path) -> Deployment:
    """The miniature's deployment with a build of its own to damage."""
    shutil.copytree(miniature.build_folder, tmp_path / miniature.name, ignore=shutil.ignore_patterns("*.log"))
    return miniature.model_copy(update={"build": tmp_path})


def refusal(deployment: Deployment) -> str:
    with pytest.raises(IntaglioError) as refused, Server(deployment, endpoints=Endpoints()):
        pass
    return str(refused.value)


def engine_file(deployment: Deployment) -> Path:
    return deployment.build_folder / read_manifest(deployment.build_folder).networks["unet"].path


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # it may be a hard link
    path.write_bytes(data)


def test_a_damaged_engine(copied: Deployment) -> None:
    flip_a_byte(engine_file(copied))
    message = refusal(copied)
    assert engine_file(copied).name in message
    assert "was changed after it was built" in message
    assert "rebuild with: intaglio build" in message


def test_a_damaged_tokenizer(copied: Deployment) -> None:
    name = next(name for name in read_manifest(copied.build_folder).files if name.endswith("merges.txt"))
    flip_a_byte(copied.build_folder / name)
    message = refusal(copied)
    assert name in message
    assert "rebuild with: intaglio build" in message


def test_a_missing_engine(copied: Deployment) -> None:
    engine_file(copied).unlink()
    message = refusal(copied)
    assert "is missing" in message
    assert "rebuild with: intaglio build" in message


def test_a_truncated_engine(copied: Deployment) -> None:
    path = engine_file(copied)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:1000])
    assert "has 1000 bytes, not" in refusal(copied)


def test_no_build(copied: Deployment) -> None:
    shutil.rmtree(copied.build_folder)
    message = refusal(copied)
    assert "No such file" in message
    assert (
        f"rebuild with: intaglio build {Path('configs', copied.name)}.yaml" in message
        or "intaglio build /" in message
    )


def test_no_model_repository(copied: Deployment) -> None:
    shutil.rmtree(copied.build_folder / REPOSITORY)
    assert f"{REPOSITORY} is missing; rebuild with: intaglio build" in refusal(copied)


def test_a_build_of_another_configuration(copied: Deployment) -> None:
    changed = copied.model_copy(update={"verify_tolerance": 0.5})
    message = refusal(changed)
    assert "another configuration" in message
    assert "rebuild with: intaglio build" in message


def test_a_repository_of_another_build(copied: Deployment) -> None:
    manifest = read_manifest(copied.build_folder)
    write_manifest(copied.build_folder, manifest.model_copy(update={"key": "f" * 64}))
    message = refusal(copied)
    assert "the model repository was written for build" in message
    assert "rebuild with: intaglio build" in message


def test_a_build_for_a_card_on_a_machine_without_one(
    copied: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Triton starts: it would take a minute to say the same in the words of CUDA."""
    monkeypatch.setattr(build_check, "gpu_count", lambda: 0)
    manifest = read_manifest(copied.build_folder)
    write_manifest(
        copied.build_folder, manifest.model_copy(update={"runtime": "tensorrt-rtx", "target": "sm89"})
    )
    message = refusal(copied)
    assert message.startswith(
        "the build needs a card (sm89, tensorrt-rtx), and CUDA sees none here; nvidia-smi"
    )
    assert "`runtime: onnxruntime` builds for a machine without one" in message
    assert not (copied.build_folder / "triton.log").exists(), "Triton was not started"


def test_a_manifest_that_is_none(copied: Deployment) -> None:
    (copied.build_folder / "manifest.json").write_text(json.dumps({"schema_version": 1}))
    assert "made by another version" in refusal(copied)


@pytest.mark.parametrize("change", [{"queue_size": 1}, {"workers": 2}])
def test_server_values_that_a_build_holds(copied: Deployment, change: dict[str, int]) -> None:
    """Queue and instances are in the build's config.pbtxt: changing them is a change of the build, changing a
    port is not.
    """
    assert "another configuration" in refusal(
        copied.model_copy(update={"server": copied.server.model_copy(update=change)})
    )
    elsewhere = copied.server.model_copy(update={"grpc_port": 18123})
    assert copied.model_copy(update={"server": elsewhere}).digest == copied.digest
