"""What the LoRA benchmark makes for itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.loras import files
from benchmarks.loras.files import (
    LORAS,
    RETRAINED,
    LoraCase,
    config_of,
    lora_file,
    use_in_fused,
    write_configs,
    write_loras,
)
from intaglio.contract.config import load_deployment
from intaglio.loras.files import LayerTable, lora_file_from_bytes

TABLE: LayerTable = {
    "unet": {
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": (96, 64),
        "down_blocks.1.attentions.0.proj_in": (64, 64),
        "conv_in": (64, 4, 3, 3),
    }
}
BASE = """
base: {architecture: sdxl-reduced, seed: 0}
controlnets: {pose: {architecture: sdxl-reduced, seed: 1, type: pose}}
profiles: {sizes: [[256, 256], [256, 192]]}
"""


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "base_layers", lambda base: TABLE)
    (tmp_path / "base.yaml").write_text(BASE)
    case = LoraCase(str(tmp_path / "base.yaml"), rank=8)
    write_configs(case, tmp_path / "work")
    write_loras(case, tmp_path / "work")
    return tmp_path / "work"


def test_a_case_survives_its_file(tmp_path: Path) -> None:
    case = LoraCase("x.yaml", rank=8, staging_mib=512)
    case.write(tmp_path / "case.json")
    assert LoraCase.read(tmp_path / "case.json") == case


def test_files_and_both_deployments(prepared: Path) -> None:
    swap = load_deployment(config_of(prepared, "swap"))
    fused = load_deployment(config_of(prepared, "fused"))
    assert (swap.swap, fused.swap) == ("transformer", "off")
    assert list(swap.loras) == list(LORAS)
    assert list(fused.fuse) == list(LORAS[:2])
    for deployment in (swap, fused):
        assert deployment.build_folder.is_relative_to(prepared), "nothing of the deployment itself is touched"
        assert deployment.controlnets == {}
        assert deployment.profiles.sizes == ((256, 256),)
    file = lora_file_from_bytes("one", lora_file(prepared, "one").read_bytes(), table=TABLE)
    assert (file.ranks, file.targets) == ((8,), {"unet": 1}), "attention and feed-forward only"
    assert len({lora_file(prepared, name).read_bytes() for name in (*LORAS, RETRAINED)}) == 4


def test_files_that_are_there_are_kept(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in (prepared / "loras").iterdir()}
    monkeypatch.delattr(files, "base_layers")
    case = LoraCase(str(prepared.parent / "base.yaml"), rank=8, staging_mib=512)
    write_configs(case, prepared)
    write_loras(case, prepared)
    assert {path: path.stat().st_mtime_ns for path in (prepared / "loras").iterdir()} == before
    assert load_deployment(config_of(prepared, "swap")).execution.lora_staging_mib == 512


def test_a_changed_file_is_the_fused_deployments_only(prepared: Path) -> None:
    path = load_deployment(config_of(prepared, "fused")).loras["one"].path
    assert path.read_bytes() == lora_file(prepared, "one").read_bytes()
    use_in_fused(prepared, RETRAINED)
    assert path.read_bytes() == lora_file(prepared, RETRAINED).read_bytes()
    assert load_deployment(config_of(prepared, "swap")).loras["one"].path != path
