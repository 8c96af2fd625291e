"""What the LoRA benchmark makes for itself, and how it judges."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import lora_files
from benchmarks.lora_files import LORAS, RETRAINED, LoraCase, config_of, lora_file, prepare, use_in_fused
from benchmarks.lora_swap import FIGURES, PARTS, gather
from benchmarks.results import write_part
from intaglio.config import load_deployment
from intaglio.lora_files import LayerTable, lora_file_from_bytes

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
    monkeypatch.setattr(lora_files, "base_layers", lambda base: TABLE)
    (tmp_path / "base.yaml").write_text(BASE)
    prepare(LoraCase(str(tmp_path / "base.yaml"), rank=8), tmp_path / "work")
    return tmp_path / "work"


def test_files_and_both_deployments(prepared: Path) -> None:
    swap, fused = (load_deployment(config_of(prepared, name)) for name in ("swap", "fused"))
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


def test_a_changed_file_is_the_fused_deployments_only(prepared: Path) -> None:
    path = load_deployment(config_of(prepared, "fused")).loras["one"].path
    assert path.read_bytes() == lora_file(prepared, "one").read_bytes()
    use_in_fused(prepared, RETRAINED)
    assert path.read_bytes() == lora_file(prepared, RETRAINED).read_bytes()
    assert load_deployment(config_of(prepared, "swap")).loras["one"].path != path


def test_figures_are_read_from_the_parts(tmp_path: Path) -> None:
    seconds = {"seconds": {"median": 1.5}}
    load = {"failed": 0, "swaps": 51, "unlike_their_first": 1}
    write_part(tmp_path, "swap", {"to_two": seconds, "step": {"median": 0.0378}, "images": {"none_equals_base": True}})
    write_part(tmp_path, "fused", {"step": {"median": 0.0347}})
    write_part(tmp_path, "served", {"load": load, "retrain": {"file_to_first_image_seconds": 16.0}})
    results = gather(tmp_path, LoraCase("x.yaml"), {})
    verdicts = {name: found["verdict"] for name, found in results["figures"].items()}
    assert list(verdicts.values()) == ["required", "required", "reached", "reached", "missed", "missed", "not measured", "reached"]
    assert len(verdicts) == len(FIGURES)
    assert set(results["parts"]) < {part.name for part in PARTS}
