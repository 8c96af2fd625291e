"""What the doctor says of LoRAs: good, refused, to be downloaded, or missing with the command that trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from intaglio.contract.config import load_deployment
from intaglio.errors import ConfigError, LoraRefused
from intaglio.serving.findings import Finding
from intaglio_export.commands.check_sources import source_findings
from intaglio_export.weights.registry import check_registry, publish_registry

from ...hub import local_hub, without_hub

ROOT = Path(__file__).parents[3]
MINIATURE = ROOT / "miniature/model"
NIGHT = ROOT / "miniature/loras/night.safetensors"
COMMAND = "train it: intaglio train lora configs/training/neon.yaml"


@pytest.fixture(autouse=True)
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that writes trained/neon/neon.safetensors."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "configs/training/neon.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("name: neon\noutput: ../../trained/neon\n")


def config(folder: Path, **values: Any) -> Path:
    path = folder / "a.yaml"
    base = [{"folder": str(MINIATURE)}]
    path.write_text(
        yaml.safe_dump({"base": base, "profiles": {"sizes": [[64, 64]]}, "build": "build", **values})
    )
    return path


def swapping(folder: Path, *, swap: str = "all", **entry: Any) -> Path:
    (folder / "loras.yaml").write_text(yaml.safe_dump({"loras": {"x": {"kind": "style", **entry}}}))
    return config(folder, registry="loras.yaml", swap=swap)


def finding(path: Path, what: str = "lora x") -> Finding:
    return next(one for one in source_findings(load_deployment(path), path) if one.what == what)


def test_files_that_a_build_can_apply_are_ok(tmp_path: Path) -> None:
    assert finding(swapping(tmp_path, file=str(NIGHT))).state == "ok"
    fused = config(tmp_path, loras={"x": {"path": str(NIGHT)}}, fuse={"x": None})
    assert finding(fused).state == "ok"


@pytest.mark.parametrize(
    ("path", "swap"),
    [("foreign.safetensors", "all"), (str(NIGHT), "transformer"), ("cut.safetensors", "all")],
)
def test_a_file_is_refused_as_a_build_refuses_it(tmp_path: Path, path: str, swap: str) -> None:
    (tmp_path / "cut.safetensors").write_bytes(NIGHT.read_bytes()[:-10])
    save_file({"lora_unet_nowhere.lora_down.weight": torch.zeros(2, 4)}, tmp_path / "foreign.safetensors")
    named = swapping(tmp_path, file=str(tmp_path / path), swap=swap)
    one = finding(named)
    with pytest.raises(LoraRefused) as refused:
        check_registry(load_deployment(named), tmp_path / "build/a")
    assert one.state == "missing"
    assert str(refused.value) == "; ".join(filter(None, (f"lora x: {one.detail}", one.fix)))
    if swap == "all":
        fused = finding(config(tmp_path, loras={"x": {"path": str(tmp_path / path)}}, fuse={"x": None}))
        assert (fused.state, fused.detail) == ("missing", one.detail)


def test_a_missing_file_names_its_training(tmp_path: Path) -> None:
    """A build that swaps goes on without it; one that fuses it does not."""
    file = "trained/neon/neon.safetensors"
    swapped = finding(swapping(tmp_path, file=file))
    assert (swapped.state, swapped.fix) == ("note", COMMAND)
    assert "a build goes on, and the LoRA is left out" in swapped.detail
    fused = finding(config(tmp_path, loras={"x": {"path": file}}, fuse={"x": None}))
    assert (fused.state, fused.fix) == ("missing", COMMAND)
    unused = finding(config(tmp_path, loras={"x": {"path": file}}))
    assert (unused.state, unused.fix) == ("note", COMMAND)


def test_a_lora_of_the_hub_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = swapping(tmp_path, hub="some/loras/night.safetensors")
    with local_hub(tmp_path / "cache", monkeypatch) as hub:
        hub.repositories["some/loras"] = {"night.safetensors": NIGHT.read_bytes()}
        one = finding(path)
        assert (one.state, one.fix) == ("note", f"intaglio build {path}")
        assert "hub:some/loras/night.safetensors: 253 KiB to download" in one.detail
        assert not hub.fetched
        assert finding(path, "downloads").state == "ok"
        hub.repositories["some/loras"] = {}
        assert "the repository has no such file" in finding(path).detail
        hub.repositories["some/loras"] = {"night.safetensors": NIGHT.read_bytes()}
        publish_registry(load_deployment(path), tmp_path / "build/a")
        assert finding(path).state == "ok", "in the cache"
    without_hub(tmp_path / "empty", monkeypatch)
    assert finding(path).state == "note"
    assert "the LoRA stays as it was published" in finding(path).detail
    (tmp_path / "build/a/loras/registry.json").unlink()
    one = finding(path)
    assert one.state == "missing"
    assert "cannot be reached" in one.detail


def test_a_damaged_list_of_versions_is_named(tmp_path: Path) -> None:
    path = swapping(tmp_path, file=str(NIGHT))
    publish_registry(load_deployment(path), tmp_path / "build/a")
    (tmp_path / "build/a/loras/registry.json").write_text("{")
    one = finding(path, "loras")
    assert one.state == "missing"
    assert "registry.json: damaged" in one.detail
    with pytest.raises(ConfigError, match="damaged"):
        check_registry(load_deployment(path), tmp_path / "build/a")


def test_without_the_base_a_file_is_opened_all_the_same(tmp_path: Path) -> None:
    path = swapping(tmp_path, file=str(NIGHT))
    values = yaml.safe_load(path.read_text()) | {"base": [{"folder": "nowhere"}]}
    path.write_text(yaml.safe_dump(values))
    assert "not compared with the base" in finding(path).detail
    (tmp_path / "cut.safetensors").write_bytes(NIGHT.read_bytes()[:-10])
    swapping(tmp_path, file="cut.safetensors")
    path.write_text(yaml.safe_dump(values))
    assert finding(path).state == "missing"
