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
from intaglio.serving.findings import Finding
from intaglio_export.commands import check_sources
from intaglio_export.commands.check_sources import source_findings

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
    assert {what: one.state for what, one in report.items()} == {"base": "ok", "controlnet.pose": "ok"}


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
    monkeypatch.setattr(check_sources.shutil, "disk_usage", lambda _: full)
    assert found(tmp_path, base=[{"hub": NAME}])["downloads"].state == "missing"


def test_no_hub_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_hub(tmp_path / "cache", monkeypatch)
    one = found(tmp_path, base=[{"folder": "nowhere"}, {"hub": NAME}])["base"]
    assert one.state == "missing"
    assert "cannot be reached" in one.detail


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
    one = found(tmp_path, base=[{"file": str(tmp_path / "a.safetensors")}, {"hub": NAME}])["base"]
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


@pytest.mark.parametrize(("fuse", "state"), [({"style": None}, "missing"), ({}, "note")])
def test_a_lora_is_missing_where_it_is_fused(tmp_path: Path, fuse: dict[str, Any], state: str) -> None:
    loras = {"style": {"path": "nowhere.safetensors"}}
    one = found(tmp_path, base=[{"folder": str(MINIATURE)}], loras=loras, fuse=fuse)["lora style"]
    assert one.state == state
    assert "train it or correct its path" in one.fix
