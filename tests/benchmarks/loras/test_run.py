"""What the LoRA benchmark makes for itself, and how it judges."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from benchmarks.loras import files as lora_files
from benchmarks.loras import parts as lora_parts
from benchmarks.loras.files import LORAS, RETRAINED, LoraCase, config_of, lora_file, prepare, use_in_fused
from benchmarks.loras.report import FIGURES, judge, main, markdown_of
from benchmarks.loras.run import PARTS, gather
from benchmarks.measuring.results import read_json, write_part
from intaglio.contract.config import load_deployment
from intaglio.errors import SwapFailed
from intaglio.loras.files import LayerTable, lora_file_from_bytes

RESULTS = Path(__file__).parents[3] / "benchmarks/results/h200_lora.json"
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
    write_part(
        tmp_path,
        "swap",
        {"to_two": seconds, "step": {"median": 0.0378}, "images": {"none_equals_base": True}},
    )
    write_part(tmp_path, "fused", {"step": {"median": 0.0347}})
    write_part(tmp_path, "served", {"load": load, "retrain": {"file_to_first_image_seconds": 16.0}})
    results = gather(tmp_path, LoraCase("x.yaml"), {})
    verdicts = {name: found["verdict"] for name, found in results["figures"].items()}
    assert list(verdicts.values()) == [
        "required",
        "required",
        "reached",
        "reached",
        "missed",
        "missed",
        "not measured",
        "reached",
    ]
    assert len(verdicts) == len(FIGURES)
    assert set(results["parts"]) < {part.name for part in PARTS}


@pytest.mark.parametrize(
    ("part", "change", "verdict"),
    [
        ("swap", {"to_two": {"seconds": {"median": 2.1}}}, "missed"),
        ("fused", {"step": {"median": 0.03}}, "missed"),
        ("rebuild", {"file_to_first_image_seconds": 241}, "missed"),
        ("served", {"load": {}}, "not measured"),
        ("swap", {"images": {"none_equals_base": False}}, "missed"),
    ],
)
def test_the_committed_figures_hold_and_worse_ones_do_not(
    part: str, change: dict[str, Any], verdict: str
) -> None:
    results = read_json(RESULTS)
    assert judge(results)
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == markdown_of(results)
    assert results["figures"] == {
        figure.name: {"value": figure.value(results), "verdict": figure.verdict(results)}
        for figure in FIGURES
    }
    results["parts"][part] |= change
    assert verdict in {figure.verdict(results) for figure in FIGURES}
    assert not judge(results)


def test_the_report_says_what_did_not_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        main(RESULTS)
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert ended.value.exit_code == 0
    assert "not finished: swap: exit 1" in shown
    assert "rank 0 only" in shown


def test_a_stand_in_reaches_nothing() -> None:
    assert not judge(read_json(RESULTS) | {"stand_in": "no card"})


def test_weights_are_measured_with_what_is_joined_with_them() -> None:
    assert lora_parts._whole(["c", "a"], [frozenset("ab"), frozenset("xy")]) == ["c", "a", "b"]


def test_an_alternative_that_is_refused_does_not_end_the_part() -> None:
    merge: Any = SimpleNamespace(staging_bytes=4608 << 20)

    def ensure(loras: tuple[Any, ...]) -> float:
        if merge.staging_bytes < 2048 << 20:
            raise SwapFailed("refit also needs others")
        return 0.5 + len(loras)

    switch: Any = SimpleNamespace(ensure=ensure, counts=SimpleNamespace(last_writing=0.25))
    found = lora_parts._staging(switch, merge, (object(),))  # type: ignore[arg-type]
    assert found["2048 MiB"]["seconds"]["median"] == 1.5
    assert found["1024 MiB"] == {"refused": "refit also needs others"}
    assert merge.staging_bytes == 4608 << 20
