"""Stages: done once, redone for a reason, never half-written."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from intaglio.builds.file_checks import check_files, file_digest
from intaglio.builds.holds import BuildHold, locked_unless_held
from intaglio.builds.manifest import read_manifest
from intaglio.contract.config import load_deployment
from intaglio.contract.sdxl import network_spec
from intaglio.engines.onnxruntime import OnnxRuntimeBackend
from intaglio.errors import BuildError, ConfigError, EngineMismatch, MissingExtra
from intaglio_export.build import BuildResult, _run_overlapped
from intaglio_export.engines import compile as compiling
from intaglio_export.plan import plan as planning
from intaglio_export.plan.stages import Stage, StageOutcome, StageStore

from .conftest import ROOT, Checkpoint, run_build, write_config


def done(watcher: Any) -> dict[str, str]:
    return {outcome.name: outcome.reason for outcome in watcher.outcomes if outcome.done}


@pytest.fixture
def copied(built: tuple[Path, BuildResult], tmp_path: Path) -> Path:
    """The built deployment's YAML in a folder of its own, with its build: free to be changed."""
    config, result = built
    shutil.copytree(result.folder.parent, tmp_path / "build")
    shutil.copy(config, tmp_path / "plate.yaml")
    return tmp_path / "plate.yaml"


def test_manifest_names_what_is_there(built: tuple[Path, BuildResult]) -> None:
    config, result = built
    manifest = read_manifest(result.folder)
    assert manifest == result.manifest
    assert manifest.config_digest == load_deployment(config).digest
    assert set(manifest.networks) == {
        "text_encoder", "text_encoder_2", "unet", "unet_context", "controlnet.pose", "controlnet_context.pose", "controlnet.canny",
        "controlnet_context.canny", "vae_decoder", "vae_encoder",
    }  # fmt: skip
    assert [(lora.id, lora.weight) for lora in manifest.loras] == [("style", 1.0), ("character", 0.7)]
    for network in manifest.networks.values():
        check_files(result.folder, network.files, command="")
        assert "relative error" in network.verification
    check_files(result.folder, manifest.files, command="")
    assert all((result.folder / name / "tokenizer_config.json").is_file() for name in manifest.tokenizers)


def test_onnx_equals_the_table(built: tuple[Path, BuildResult]) -> None:
    result = built[1]
    for name, network in result.manifest.networks.items():
        spec = network_spec(name, result.manifest.architecture)
        graph = onnx.load(result.folder / network.path).graph
        assert [item.name for item in graph.input] == [tensor.name for tensor in spec.inputs]
        assert [item.name for item in graph.output] == [tensor.name for tensor in spec.outputs]
        OnnxRuntimeBackend(threads=1).load(spec, result.folder / network.path, precision="fp32")


def test_lora_targets_keep_their_names(built: tuple[Path, BuildResult]) -> None:
    """A refit replaces them by name in a running engine."""
    store = built[1].folder.parent / ".stages/onnx/unet"
    graph = onnx.load(next(store.glob("*/model.onnx"))).graph
    names = [
        tensor.name
        for tensor in graph.initializer
        if compiling.is_swapped(tensor.name, len(tensor.dims), "transformer")
    ]
    assert len([name for name in names if name.endswith("to_q.weight.T")]) == 2 * 11
    assert not [tensor.name for tensor in graph.initializer if tensor.name.startswith("onnx::MatMul")]


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


def test_what_is_removed_cannot_be_taken_up_meanwhile(tmp_path: Path) -> None:
    def lock(kind: int) -> None:
        with folder_descriptor(tmp_path) as descriptor:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)

    with locked_unless_held(tmp_path) as unheld:
        assert unheld
        with pytest.raises(BlockingIOError):
            lock(fcntl.LOCK_SH)
    lock(fcntl.LOCK_EX)
    with folder_descriptor(tmp_path) as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        with locked_unless_held(tmp_path) as unheld:
            assert not unheld


@contextlib.contextmanager
def folder_descriptor(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_server_settings_rebuild_nothing_but_the_repository(copied: Path, checkpoint: Checkpoint) -> None:
    write_config(copied, checkpoint, server={"queue_size": 3, "workers": 2}, limits={"steps": 50})
    result, watcher = run_build(copied)
    assert set(done(watcher)) == {"repository"}
    text = (result.folder / "model_repository/preprocess/config.pbtxt").read_text()
    assert "max_queue_size: 3" in text
    assert "count: 2" in text
    assert result.manifest.key in text


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


def test_an_engine_that_disagrees_is_not_served(
    copied: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run_build(copied)[0].manifest
    original = planning.compile_network

    def spoilt(job: Any, folder: Path, *, platform: Any) -> dict[str, Any]:
        notes = original(job, folder, platform=platform)
        model = onnx.load(folder / "engine.onnx")
        weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        values = onnx.numpy_helper.to_array(weight) * 1.05
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), weight.name))
        onnx.save(model, folder / "engine.onnx")
        return notes

    monkeypatch.setattr(planning, "compile_network", spoilt)
    write_config(copied, checkpoint, fuse={})
    with pytest.raises(
        BuildError, match=r"text_encoder.*disagrees with PyTorch.*not put into the repository"
    ):
        run_build(copied)
    assert read_manifest(copied.parent / "build/plate") == before


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    store = StageStore(tmp_path / "store")

    def fill(work: Path) -> dict[str, Any]:
        (work / "half").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BuildError, match="thing: the disk is full"), store.locked():
        store.run(Stage("thing", {"a": 1}, {}, fill))
    assert not [path for path in (tmp_path / "store").rglob("*") if path.name == "half"]
    assert store.why(Stage("thing", {"a": 1}, {}, fill)) == "not built yet"


def test_an_interrupted_stage_is_cleaned_up_by_the_next_build(tmp_path: Path) -> None:
    left = tmp_path / "store/.unfinished/stage-x/result"
    left.mkdir(parents=True)
    with StageStore(tmp_path / "store").locked():
        assert not left.exists()


def test_two_builds_wait_for_each_other(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    waited = threading.Event()
    with (tmp_path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Thread(target=lambda: (waited.wait(10), fcntl.flock(other, fcntl.LOCK_UN))).start()
        with store.locked(waiting=waited.set):
            assert waited.is_set()


def test_the_key_knows_every_input(tmp_path: Path) -> None:
    def key(inputs: dict[str, Any], versions: dict[str, str]) -> str:
        return Stage("thing", inputs, versions, lambda work: {}).key

    keys = [
        key({"a": 1}, {"torch": "1"}),
        key({"a": 2}, {"torch": "1"}),
        key({"a": 1}, {"torch": "2"}),
        key({}, {}),
    ]
    assert len(set(keys)) == 4


# What users get wrong


def test_base_falls_back_and_says_so(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = [{"folder": "nowhere"}, {"file": "preferred.safetensors"}, {"folder": str(checkpoint.base)}]
    deployment = load_deployment(write_config(tmp_path / "a.yaml", checkpoint, base=base))
    found = planning.find_base(deployment.base)
    assert found.root == checkpoint.base
    assert [item.partition(": ")[2] for item in found.passed_over] == ["no such folder", "no such file"]


def test_no_base_names_every_candidate(checkpoint: Checkpoint, tmp_path: Path) -> None:
    config = write_config(
        tmp_path / "a.yaml", checkpoint, base=[{"folder": "nowhere"}, {"file": "x.safetensors"}]
    )
    with pytest.raises(
        ConfigError,
        match=r"no base is available: .*nowhere: no such folder; .*x.safetensors: no such file; correct",
    ):
        run_build(config)


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda path: path.write_bytes(path.read_bytes()[:-100]), "its header says .*fetch it again"),
    (lambda path: path.write_bytes(b"<html>not found</html>"), "not a safetensors file"),
    (lambda path: path.rename(path.with_name("diffusion_pytorch_model.bin")), "no .safetensors weights; .*bin is pickled"),
    (lambda path: (path.parent / "config.json").write_text("{"), "config.json"),
])  # fmt: skip
def test_damaged_base_is_named(checkpoint: Checkpoint, tmp_path: Path, spoil: Any, message: str) -> None:
    shutil.copytree(checkpoint.base, tmp_path / "base")
    spoil(tmp_path / "base/unet/diffusion_pytorch_model.safetensors")
    with pytest.raises(BuildError, match=message):
        run_build(write_config(tmp_path / "a.yaml", checkpoint, base=[{"folder": "base"}], fuse={}, loras={}))
    assert not (tmp_path / "build/a").exists()


@pytest.mark.parametrize(("changes", "message"), [
    ({"controlnets": {"pose": {"folder": "nowhere", "type": "pose"}}}, "controlnet .*nowhere: no such folder"),
    ({"loras": {"style": {"path": "no.safetensors"}}, "fuse": {"style": None}}, "lora style: .*no such file"),
    ({"profiles": {"sizes": [[100, 64]]}}, "multiples of 8"),
    ({"poses": "nowhere"}, "poses: .*no such folder"),
    ({"vae": {"folder": "nowhere"}}, "vae .*no such folder"),
])  # fmt: skip
def test_bad_configurations(
    checkpoint: Checkpoint, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    config = write_config(tmp_path / "a.yaml", checkpoint, **changes)
    with pytest.raises(ConfigError, match=message):
        run_build(config)
    assert not (tmp_path / "build/.stages/onnx").exists()  # said before any work


def test_controlnet_of_another_base(checkpoint: Checkpoint, tmp_path: Path) -> None:
    shutil.copytree(checkpoint.controlnet("pose"), tmp_path / "pose")
    path = tmp_path / "pose/config.json"
    path.write_text(path.read_text().replace('"cross_attention_dim": 96', '"cross_attention_dim": 2048'))
    controlnets = {"pose": {"folder": "pose", "type": "pose"}}
    with pytest.raises(
        ConfigError, match=r"controlnet.pose: made for another base: cross_attention_dim is 2048"
    ):
        run_build(write_config(tmp_path / "a.yaml", checkpoint, controlnets=controlnets))


def test_weights_that_do_not_fit_their_config(checkpoint: Checkpoint, tmp_path: Path) -> None:
    shutil.copytree(checkpoint.base, tmp_path / "base")
    path = tmp_path / "base/text_encoder/model.safetensors"
    save_file({name: torch.zeros(3) for name in load_file(path)}, path, metadata={"format": "pt"})
    with pytest.raises(BuildError, match=r"does not load as text_encoder"):
        run_build(write_config(tmp_path / "a.yaml", checkpoint, base=[{"folder": "base"}], fuse={}, loras={}))


def test_tensorrt_without_a_card_needs_a_target(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "gpu_capability", lambda: None)
    pytest.importorskip("tensorrt_rtx")
    deployment = load_deployment(write_config(tmp_path / "a.yaml", checkpoint, runtime="tensorrt-rtx"))
    with pytest.raises(ConfigError, match="the card must be named"):
        compiling.resolve_platform(deployment)


@pytest.mark.parametrize(("card", "packaged", "runtime", "target"), [
    (None, True, "onnxruntime", "cpu"), ("sm89", True, "tensorrt-rtx", "sm89"), ("sm89", False, "onnxruntime", "cpu"),
])  # fmt: skip
def test_auto_takes_the_card_that_is_here(  # noqa: PLR0913, PLR0917
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    card: str | None,
    packaged: bool,
    runtime: str,
    target: str,
) -> None:
    monkeypatch.setattr(compiling, "gpu_capability", lambda: card)
    monkeypatch.setattr(
        compiling, "_version", lambda name: "1" if packaged or name == "onnxruntime" else None
    )
    platform = compiling.resolve_platform(
        load_deployment(write_config(tmp_path / "a.yaml", checkpoint, runtime="auto"))
    )
    assert (platform.runtime, platform.target, platform.on_gpu) == (runtime, target, runtime != "onnxruntime")


def test_missing_package_names_the_extra(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_version", lambda name: None)
    with pytest.raises(MissingExtra, match=r"intaglio\[tensorrt\]"):
        compiling.resolve_platform(
            load_deployment(write_config(tmp_path / "a.yaml", checkpoint, runtime="tensorrt", target="sm89"))
        )


def overlapped(run: Callable[[Stage], StageOutcome]) -> tuple[StageOutcome, ...]:
    kinds, networks = ("onnx", "engine", "verify"), ("text_encoder", "unet", "controlnet.pose")
    return _run_overlapped(
        [Stage(f"{kind}/{network}", {}, {}, lambda _: {}) for network in networks for kind in kinds], run
    )


def test_one_network_is_compiled_at_a_time_while_the_one_before_is_verified() -> None:
    verifying, compiling = threading.Event(), threading.Semaphore(1)

    def run(stage: Stage) -> StageOutcome:
        if stage.name.startswith("engine/"):
            assert compiling.acquire(blocking=False), "two at once take 30 GiB of the host with SDXL's"
            if stage.name == "engine/controlnet.pose":
                assert verifying.wait(10), "the UNet waits for what has nothing to do with it"
            compiling.release()
        elif stage.name == "verify/unet":
            verifying.set()
        return StageOutcome(stage.name, True, "test", 0.0)

    assert [outcome.name for outcome in overlapped(run)] == [
        f"{kind}/{network}"
        for network in ("text_encoder", "unet", "controlnet.pose")
        for kind in ("onnx", "engine", "verify")
    ]


def test_an_engine_that_disagrees_ends_the_build() -> None:
    def run(stage: Stage) -> StageOutcome:
        if stage.name == "verify/unet":
            raise BuildError("disagrees")
        return StageOutcome(stage.name, True, "test", 0.0)

    with pytest.raises(BuildError, match="disagrees"):
        overlapped(run)
