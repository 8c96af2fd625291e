"""What the doctor says of a deployment's sources: there, to be downloaded, of another kind, or missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio.contract.config import load_deployment
from intaglio.errors import BuildError
from intaglio.serving.doctor import examine_config
from intaglio.serving.findings import Finding
from intaglio.single_files import SDXL_HUB_ID
from intaglio_export.commands import check_disk
from intaglio_export.commands.check_sources import source_findings
from intaglio_export.engines import platform
from intaglio_export.weights.sources import find_base

from ...hub import Hub, local_hub, without_hub

ROOT = Path(__file__).parents[3]
MINIATURE = ROOT / "miniature/model"
POSE = ROOT / "miniature/controlnets/pose"
NAME = "somebody/miniature"


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with local_hub(tmp_path / "cache", monkeypatch) as hub:
        yield hub


def found(tmp_path: Path, **values: Any) -> dict[str, Finding]:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"profiles": {"sizes": [[64, 64]]}, **values}))
    return {one.what: one for one in source_findings(load_deployment(path), path)}


def test_what_is_here_is_ok(tmp_path: Path) -> None:
    controlnets = {"pose": {"folder": str(POSE), "type": "pose"}}
    report = found(tmp_path, base=[{"folder": str(MINIATURE)}], controlnets=controlnets)
    states = {what: one.state for what, one in report.items()}
    assert states == {"base": "ok", "controlnet.pose": "ok", "build disk": "ok"}


def test_a_download_has_a_size_and_needs_room(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories[NAME] = files_of(MINIATURE)
    report = found(tmp_path, base=[{"hub": NAME}])
    assert report["base"].state == "note"
    assert "MiB to download" in report["base"].detail
    assert report["base"].fix == f"intaglio build {tmp_path / 'a.yaml'}"
    assert report["downloads"].state == "ok"
    assert not [name for name in hub.fetched if name.endswith(".safetensors")], "only asked"
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(check_disk.shutil, "disk_usage", lambda _: full)
    assert found(tmp_path, base=[{"hub": NAME}])["downloads"].state == "missing"


def test_no_hub_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_hub(tmp_path / "cache", monkeypatch)
    one = found(tmp_path, base=[{"folder": "nowhere"}, {"hub": NAME}])["base"]
    assert one.state == "missing"
    assert "cannot be reached" in one.detail
    assert one.fix.endswith(f"or with the hub in reach: intaglio build {tmp_path / 'a.yaml'}")


def test_what_ends_a_build_is_not_passed_over(hub: Hub, tmp_path: Path) -> None:
    """A repository that lacks a file, and a download that was interrupted, end a build."""
    files = files_of(MINIATURE)
    lacking = {name: data for name, data in files.items() if not name.startswith("vae/")}
    hub.repositories["some/lacking"] = lacking
    hub.keep("some/partial", lacking)
    for name in ("some/lacking", "some/partial"):
        base = [{"hub": name}, {"folder": str(MINIATURE)}]
        one = found(tmp_path, base=base)["base"]
        config = load_deployment(tmp_path / "a.yaml")
        with pytest.raises(BuildError) as refused:
            find_base(config.base)
        assert one.state == "missing"
        assert str(refused.value).startswith(one.detail)
    absent = found(tmp_path, base=[{"hub": "no/body"}, {"folder": str(MINIATURE)}])["base"]
    assert absent.state == "ok", "it is passed over"


def test_a_file_takes_the_configurations_that_a_build_takes(hub: Hub, tmp_path: Path) -> None:
    """Without another base, those of SDXL's own repository; a lender that is absent is passed over."""
    (tmp_path / "a.safetensors").write_bytes(b"")
    hub.repositories[SDXL_HUB_ID] = files_of(MINIATURE)
    file = {"file": str(tmp_path / "a.safetensors")}
    for base in ([file], [file, {"hub": "no/body"}]):
        one = found(tmp_path, base=base)["base"]
        assert one.state == "note"
        assert f"its configurations come from hub:{SDXL_HUB_ID}: " in one.detail
    hub.keep(NAME, {name: data for name, data in files_of(MINIATURE).items() if "safetensors" not in name})
    one = found(tmp_path, base=[file, {"hub": "no/body"}, {"hub": NAME}])["base"]
    assert "fetch the file again" in one.fix, "the configurations are here, so the file is opened"


def test_poses_are_looked_for(tmp_path: Path) -> None:
    base = [{"folder": str(MINIATURE)}]
    assert found(tmp_path, base=base, poses=str(ROOT / "configs/poses"))["poses"].state == "ok"
    one = found(tmp_path, base=base, poses="nowhere")["poses"]
    assert (one.state, one.detail) == ("missing", f"{tmp_path / 'nowhere'}: no such folder")


def test_a_damaged_pose_is_named_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "poses").mkdir()
    shutil.copy(ROOT / "configs/poses/waving-01.json", tmp_path / "poses")
    (tmp_path / "poses/broken.json").write_text("{")
    one = found(tmp_path, base=[{"folder": str(MINIATURE)}], poses="poses")["poses"]
    assert one.state == "note"
    assert one.detail.startswith("pose broken: broken.json is not OpenPose JSON")


def test_files_of_detectors_are_looked_for_and_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "there.onnx").write_bytes(b"")
    detectors = {
        "pose": {"kind": "movenet", "file": "there.onnx"},
        "midas": {"kind": "depth", "file": "gone.onnx"},
    }
    report = found(tmp_path, base=[{"folder": str(MINIATURE)}], detectors=detectors)
    assert report["detector.pose"].state == "ok"
    assert report["detector.midas"].state == "note"
    assert report["detector.midas"].detail == f"{tmp_path / 'gone.onnx'}: no such file"


def test_files_that_read_faces_are_looked_for_and_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "there.onnx").write_bytes(b"")
    faces = {"characters": "characters", "detector": "there.onnx", "threshold": 0.4}
    for recognition, state in (("there.onnx", "ok"), ("gone.onnx", "note")):
        identity = faces | {"recognition": recognition}
        one = found(tmp_path, base=[{"folder": str(MINIATURE)}], identity=identity)["identity"]
        assert one.state == state
    assert one.detail == f"{tmp_path / 'gone.onnx'}: no such file"
    models = {"kind": "insightface", "models": "models", "characters": "characters", "threshold": 0.4}
    one = found(tmp_path, base=[{"folder": str(MINIATURE)}], identity=models)["identity"]
    assert (one.state, one.detail) == ("note", f"{tmp_path / 'models'}: has no ONNX file")


def test_presets_are_counted_and_wrong_ones_are_named(tmp_path: Path) -> None:
    base = [{"folder": str(MINIATURE)}]
    path = tmp_path / "presets.yaml"
    path.write_text("quality: {draft: {steps: 8}}")
    one = found(tmp_path, base=base, presets="presets.yaml")["presets"]
    assert (one.state, one.detail) == ("ok", f"{path}: 1 quality, 0 styles, 0 negatives, 0 scenes")
    path.write_text("styles: {a: {prompt: '{prompt} <lora:night>'}}")
    one = found(tmp_path, base=base, presets="presets.yaml")["presets"]
    assert one.state == "missing"
    assert "styles.a: prompt: 'night' is unknown" in one.detail
    path.write_text("quality: {draft: {steps: 40}}")
    cheap = {"cost": 64 * 64 * 30}
    one = found(tmp_path, base=base, presets="presets.yaml", limits=cheap)["presets"]
    assert one.state == "missing"
    assert "quality.draft: steps: 40 steps" in one.detail
    path.write_text("quality: {draft: {step: 8}}")
    (one,) = examine_config(tmp_path / "a.yaml")
    assert (one.what, one.state) == ("config", "missing")
    assert "quality.draft: step: no input" in one.detail


def test_a_platform_that_cannot_be_built_for_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "runtime_version", lambda runtime: None)
    one = found(tmp_path, base=[{"folder": str(MINIATURE)}], runtime="tensorrt-rtx", target="sm89")[
        "platform"
    ]
    assert (one.state, one.fix) == ("missing", "run: pip install 'intaglio[tensorrt]'")


def test_another_kind_is_missing(hub: Hub, tmp_path: Path) -> None:
    """A cached inpainting checkpoint is there and complete, and cannot be served."""
    files = files_of(MINIATURE)
    config = json.loads(files["unet/config.json"]) | {"in_channels": 9}
    hub.keep(NAME, files | {"unet/config.json": json.dumps(config).encode()})
    one = found(tmp_path, base=[{"hub": NAME}])["base"]
    assert one.state == "missing"
    assert "9 channels are an inpainting UNet" in one.detail
    assert one.fix == "take the text-to-image checkpoint that it was made from"


def test_a_file_borrows_configurations_that_are_not_here_yet(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"")
    hub.repositories[NAME] = files_of(MINIATURE)
    findings = found(tmp_path, base=[{"file": str(tmp_path / "a.safetensors")}, {"hub": NAME}])
    one = findings["base"]
    assert "downloads" in findings
    assert "build disk" not in findings, "the download is no measure of the file's weights"
    assert one.state == "note"
    assert f"its configurations come from hub:{NAME}" in one.detail


def test_sources_that_do_not_fit_each_other_are_named(tmp_path: Path) -> None:
    shutil.copytree(POSE, tmp_path / "pose")
    path = tmp_path / "pose/config.json"
    config = json.loads(path.read_text()) | {"layers_per_block": 3}
    path.write_text(json.dumps(config))
    controlnets = {"pose": {"folder": str(tmp_path / "pose"), "type": "pose"}}
    one = found(tmp_path, base=[{"folder": str(MINIATURE)}], controlnets=controlnets)["sources"]
    assert one.detail.startswith("controlnet.pose: made for another base: layers_per_block is 3")
