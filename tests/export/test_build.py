"""Whole builds: what is done, what is skipped and why, what is refused before any work."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from intaglio.builds.file_checks import check_files
from intaglio.builds.manifest import read_manifest
from intaglio.errors import BuildError, ConfigError, EngineMismatch, InvalidRequest
from intaglio_export.build import BuildOptions
from intaglio_export.plan import make

from ..checkpoint import ROOT, Checkpoint
from .conftest import done, run_build, write_config


def test_second_build_does_nothing_in_three_seconds(copied: Path) -> None:
    run_build(copied)
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-c",
        "from intaglio_export.commands.build import app; app()",
        str(copied),
    ]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(str(ROOT / room) for room in ("runtime", "export"))
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finished = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=True, timeout=15
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "done" not in finished.stdout
    assert finished.stdout.count("unchanged") == 32
    assert "| torch\n" not in finished.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3, (
        "of the processor: other work costs none of it"
    )


def test_a_new_lora_weight_redoes_what_it_touches(copied: Path, checkpoint: Checkpoint) -> None:
    before = run_build(copied)[0].manifest
    write_config(copied, checkpoint, fuse={"style": 0.5})
    result, watcher = run_build(copied)
    reasons = done(watcher)
    assert reasons["fuse"] == "changed: loras"
    assert reasons["onnx/unet"] == "changed: weights"
    assert reasons["engine/unet"] == "changed: onnx"
    assert not {name for name in reasons if "vae" in name or "controlnet" in name}
    assert result.manifest.networks["vae_decoder"] == before.networks["vae_decoder"]
    assert result.manifest.networks["unet"].key != before.networks["unet"].key
    engines = {path.name for path in (result.folder / "engines").iterdir()}
    assert len(engines) == len(result.manifest.networks)
    write_config(copied, checkpoint)
    result, watcher = run_build(copied)
    assert set(done(watcher)) == {"repository"}  # the earlier set's engines were kept
    assert result.manifest == before


def test_an_engine_that_disagrees_is_not_served(
    copied: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run_build(copied)[0].manifest
    original = make.compile_network

    def spoilt(job: Any, folder: Path, *, platform: Any) -> dict[str, Any]:
        notes = original(job, folder, platform=platform)
        model = onnx.load(folder / "engine.onnx")
        weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        values = onnx.numpy_helper.to_array(weight) * 1.05
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), weight.name))
        onnx.save(model, folder / "engine.onnx")
        return notes

    monkeypatch.setattr(make, "compile_network", spoilt)
    write_config(copied, checkpoint, fuse={})
    with pytest.raises(
        BuildError, match=r"text_encoder.*disagrees with PyTorch.*not put into the repository"
    ):
        run_build(copied)
    assert read_manifest(copied.parent / "build/plate") == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"controlnets": {"pose": {"folder": "nowhere", "type": "pose"}}},
            "controlnet .*nowhere: no such folder",
        ),
        (
            {"loras": {"style": {"path": "no.safetensors"}}, "fuse": {"style": None}},
            "lora style: .*no such file",
        ),
        ({"profiles": {"sizes": [[100, 64]]}}, "multiples of 8"),
        ({"poses": "nowhere"}, "poses: .*no such folder"),
        ({"vae": {"folder": "nowhere"}}, "vae .*no such folder"),
        (
            {"fuse": None, "loras": None, "registry": "loras.yaml", "swap": "all", "precision": "fp16"},
            "precision fp16: ONNX Runtime cannot change weights in float16",
        ),
    ],
)
def test_bad_configurations(
    checkpoint: Checkpoint, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    (tmp_path / "loras.yaml").write_text("loras: {}\n")
    config = write_config(tmp_path / "a.yaml", checkpoint, **changes)
    with pytest.raises(ConfigError, match=message):
        run_build(config)
    assert not (tmp_path / "build/.stages/onnx").exists()  # said before any work


def test_options_are_part_of_the_command_that_builds_again() -> None:
    assert BuildOptions().arguments == ""
    options = BuildOptions(runtime="tensorrt-rtx", target="sm89", output=Path("out"), force=True)
    assert options.arguments == " --runtime tensorrt-rtx --target sm89 --output out"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "sm1"}, "target: is 'sm1'; allowed: auto, cpu, sm75"),
        ({"runtime": "onnxruntime", "target": "sm89"}, "runtime onnxruntime runs on the CPU"),
    ],
)
def test_options_that_are_not_allowed(
    checkpoint: Checkpoint, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    config = write_config(tmp_path / "a.yaml", checkpoint)
    with pytest.raises(InvalidRequest, match=message):
        run_build(config, **options)


def damage(path: Path) -> None:
    """Change one byte of `path`, whose size and time stay."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_damage_of_equal_size_and_time_is_found_by_a_check(copied: Path) -> None:
    result = run_build(copied)[0]
    name = result.manifest.networks["text_encoder"].path
    served = result.folder / name
    damage(served)
    with pytest.raises(EngineMismatch, match=r"was changed after .* intaglio build .*plate.yaml --check$"):
        check_files(result.folder, result.manifest.listed, command=result.manifest.rebuild)
    assert not done(run_build(copied)[1]), "sizes and times are as they were"
    assert done(run_build(copied, check=True)[1]) == {"repository": f"{name} was changed after it was built"}
    check_files(result.folder, result.manifest.listed, command=result.manifest.rebuild)
    key = result.manifest.stages["engine/text_encoder"]
    damage(copied.parent / "build/.stages/engine/text_encoder" / key[:16] / "engine.onnx")
    reasons = done(run_build(copied, check=True)[1])
    assert reasons["engine/text_encoder"] == "engine.onnx was changed after it was built"


def test_the_store_keeps_what_builds_name_and_one_result_more(copied: Path, checkpoint: Checkpoint) -> None:
    fused = copied.parent / "build/.stages/fuse"
    made = [run_build(copied)[0].manifest.stages["fuse"]]
    for weight in (0.5, 0.6):
        write_config(copied, checkpoint, fuse={"style": weight}, controlnets={})
        result = run_build(copied, keep=1)[0]
        made.append(result.manifest.stages["fuse"])
    assert "earlier results that no build names" in result.messages[-1]
    assert "--keep-all keeps such results" in result.messages[-1]
    assert {path.name for path in fused.iterdir()} == {key[:16] for key in made[1:]}
