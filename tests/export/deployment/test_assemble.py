"""The deployment folder: what is there is kept, repaired and removed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from intaglio.builds.file_checks import check_files, file_digest
from intaglio.builds.holds import BuildHold
from intaglio.errors import EngineMismatch

from ...checkpoint import Checkpoint
from ..conftest import done, run_build, write_config


def test_what_is_served_outlives_the_next_builds(copied: Path, checkpoint: Checkpoint) -> None:
    """Engines, tokenizers and poses that a server holds stay, byte for byte, until it lets go."""
    result = run_build(copied)[0]
    files = [name for network in result.manifest.networks.values() for name in network.files] + list(
        result.manifest.files
    )
    before = {name: (result.folder / name).stat().st_ino for name in files}
    hold = BuildHold(result.folder, result.manifest)
    write_config(copied, checkpoint, fuse={"style": 0.25})
    changed = run_build(copied)[0].manifest
    assert changed.networks["unet"].path not in files
    run_build(copied)
    assert {name: (result.folder / name).stat().st_ino for name in files} == before
    check_files(result.folder, result.manifest.networks["unet"].files, command="")
    hold.release()
    run_build(copied)
    assert not (result.folder / result.manifest.networks["unet"].path).parent.exists()
    check_files(result.folder, changed.networks["unet"].files, command="")
    check_files(result.folder, changed.files, command="")


def test_what_is_served_outlives_a_build_of_the_same_engines(copied: Path, checkpoint: Checkpoint) -> None:
    """ONNX Runtime's engines are the same whatever is swapped; the pristine weights beside them are not."""
    facts = {
        "file": str(checkpoint.lora("style")),
        "kind": "style",
        "sha256": file_digest(checkpoint.lora("style")).sha256,
    }
    copied.with_name("loras.yaml").write_text(yaml.safe_dump({"loras": {"style": facts}}))
    swapped = {"registry": "loras.yaml", "fuse": None, "loras": None, "controlnets": None}
    result = run_build(write_config(copied, checkpoint, swap="all", **swapped))[0]
    before = result.manifest.networks["unet"]
    hold = BuildHold(result.folder, result.manifest)
    after = run_build(write_config(copied, checkpoint, swap="transformer", **swapped))[0].manifest.networks[
        "unet"
    ]
    assert after.key == before.key
    assert after.pristine != before.pristine
    for network in result.manifest.networks.values():
        check_files(result.folder, network.files, command="")
    hold.release()
    run_build(copied)
    assert not (result.folder / before.path).exists()
    check_files(result.folder, after.files, command="")


@pytest.mark.parametrize("how", ["flip", "delete", "truncate"])
def test_a_damaged_engine_is_made_again(copied: Path, how: str) -> None:
    result = run_build(copied)[0]
    path = result.folder / result.manifest.networks["vae_encoder"].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    with path.open("r+b") as file:  # in place: the store's file is the same one
        file.write(data) if how == "flip" else file.truncate(100)
    if how == "delete":
        path.unlink()
    if how != "delete":
        with pytest.raises(EngineMismatch, match="rebuild with: intaglio build"):
            check_files(
                result.folder, result.manifest.networks["vae_encoder"].files, command=result.manifest.rebuild
            )
    again, watcher = run_build(copied)
    assert again.manifest == result.manifest
    assert "repository" in done(watcher)
    check_files(again.folder, again.manifest.networks["vae_encoder"].files, command="")


def test_server_settings_rebuild_nothing_but_the_repository(copied: Path, checkpoint: Checkpoint) -> None:
    write_config(copied, checkpoint, server={"queue_size": 3, "workers": 2}, limits={"steps": 50})
    result, watcher = run_build(copied)
    assert set(done(watcher)) == {"repository"}
    repository = result.folder / "model_repository"
    assert "max_queue_size: 3" in (repository / "diffuse/config.pbtxt").read_text()
    text = (repository / "preprocess/config.pbtxt").read_text()
    assert "count: 2" in text
    assert result.manifest.key in text
