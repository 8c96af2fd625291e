"""The benchmarks' own processes on the miniature: what they write is what the report reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpus import load
from benchmarks.gpus.configs import write_configs
from benchmarks.gpus.run import gather
from benchmarks.measuring import timing
from benchmarks.measuring.case import Case
from benchmarks.measuring.results import read_part
from benchmarks.speed import controls, engines, served, soak
from benchmarks.speed.report import CONTROLS_FIGURES
from intaglio.contract.config import Deployment
from intaglio.errors import ConfigError
from intaglio.serving.server import Server

from .conftest import FUSED_SIZE, REPOSITORY, fused_build

pytestmark = pytest.mark.long


@pytest.fixture
def case_file(miniature: Deployment, tmp_path: Path) -> Path:
    width, height = miniature.profiles.sizes[1]
    config = miniature.folder / f"{miniature.name}.yaml"
    path = tmp_path / "case.json"
    Case(str(config), width, height, steps=2, images=1, control="pose").write(path)
    return path


def part(work: Path, name: str) -> dict[str, Any]:
    found = read_part(work, name)
    assert found is not None
    return found


def test_engines_and_served_make_the_same_image(
    case_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_SAMPLES", 1)
    monkeypatch.setattr(timing, "_RUNS", 1)
    engines.main(case_file, tmp_path)
    found = part(tmp_path, "engines")
    stages = found["stages"]
    assert {"text_encoder", "text_encoder_2", "vae_decoder", "unet without guidance"} <= set(stages)
    assert set(found["options"]) == set(engines.OPTIONS)
    together = stages["unet"]["median"] + stages["controlnet.pose"]["median"]
    assert found["step"]["median"] > 0.5 * together
    served.main(case_file, tmp_path, each=1)
    over_grpc = part(tmp_path, "served")
    timed = {"end_to_end", "first start to first image", "restart to first image", "denoise"}
    assert timed <= set(over_grpc["seconds"])
    assert len(over_grpc["sizes"]) == 3
    assert "memory_limit_gib allows" in over_grpc["refused"]
    assert np.array_equal(np.load(tmp_path / "engines/0.npy"), np.load(tmp_path / "served/0.npy"))


def test_copies_of_a_controlnet_take_turns(
    miniature: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_SAMPLES", 1)
    monkeypatch.setattr(timing, "_RUNS", 1)
    monkeypatch.setattr(controls, "_SWAPS", 3)
    pose = {"folder": str(REPOSITORY / "miniature/controlnets/pose"), "type": "pose"}
    poses = str(REPOSITORY / "configs/poses")
    fused_build(miniature, tmp_path, {}, name="one", controlnets={"pose": pose}, poses=poses)
    path = tmp_path / "case.json"
    Case(str(tmp_path / "one.yaml"), *FUSED_SIZE, steps=2, images=1, control="pose").write(path)
    controls.main(path, tmp_path)
    found = part(tmp_path, "controls")
    assert (found["controlnets"], found["resident"], found["different"]) == (5, 2, 0)
    timed = {"1 ControlNets", "2 ControlNets", "with a swap", "without a swap", "controlnet_swap"}
    assert timed <= set(found["seconds"])
    assert set(found["steps"]) > {"0 ControlNets", "1 ControlNets", "2 ControlNets"}
    assert set(found["opening"]["as served"]) == {"load", "context", "first pass", "second pass", "close"}
    results = {"parts": {"controls": found}, "case": {"steps": 2}, "stand_in": None}
    reached = {figure.name: figure.value(results) for figure in CONTROLS_FIGURES}
    assert reached["five ControlNets: card memory of the server, peak"] is None, "there is no card"
    assert reached["five ControlNets: pictures unlike after swaps"] == 0
    assert None not in (
        reached["a further ControlNet against its engine"],
        reached["swap between two ControlNets"],
    )


def test_a_soak_finds_every_image_as_it_was(case_file: Path, tmp_path: Path) -> None:
    soak.main(case_file, tmp_path, images=16, steps=1, seconds=60)
    found = part(tmp_path, "soak")
    assert found["images"] > found["requests"] == 12
    assert found["different_from_first"] == []


def test_over_budget_is_refused_before_anything_is_loaded(miniature: Deployment) -> None:
    short = miniature.model_copy(update={"memory_limit_gib": 0.01})
    refusal = r"miniature needs .* memory_limit_gib allows 0.01 GiB; what would help: precision: fp16 "
    with pytest.raises(ConfigError, match=refusal), Server(short):
        pass


def test_one_instance_is_compared_with_two(miniature: Deployment, tmp_path: Path) -> None:
    fused_build(miniature, tmp_path, {}, name="one")
    written = write_configs(tmp_path / "one.yaml", tmp_path / "configs", [1, 2])
    for count, config in written.items():
        path = tmp_path / f"case_{count}.json"
        Case(str(config), *FUSED_SIZE, steps=2, images=2).write(path)
        load.main(path, tmp_path, part=f"served_{count}", count=count, images=2, open_seconds=1.0)
    results = gather(tmp_path, {}, {})
    assert set(results["scaling"]) == {"1", "2"}
    assert results["parts"]["served_2"]["offline"]["images"] == 4
    assert results["parts"]["served_2"]["open"]["requests"] >= 4
    assert results["stand_in"] is not None
