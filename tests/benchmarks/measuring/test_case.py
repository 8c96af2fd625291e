"""The workload: the same for all, and of no use to a cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.measuring.case import Case, deployment_values, load_case, write_case_configs
from intaglio.contract.config import load_deployment
from intaglio.errors import ConfigError

ROOT = Path(__file__).parents[3]
CASE = Case(str(ROOT / "configs/sdxl-seeded.yaml"), 1024, 1024, steps=3, images=2, control="pose")


def test_a_case_survives_its_file(tmp_path: Path) -> None:
    CASE.write(tmp_path / "case.json")
    assert Case.read(tmp_path / "case.json") == CASE


def test_no_two_images_share_a_prompt_or_a_control() -> None:
    assert len({CASE.prompt_of(image) for image in range(5)}) == 5
    assert CASE.control_image(0) == CASE.control_image(0)
    assert len({CASE.control_image(image) for image in range(-1, 2)}) == 3


def test_a_case_is_the_first_size_with_the_first_control(tmp_path: Path) -> None:
    case = load_case(ROOT / "configs/sdxl-seeded.yaml", steps=7, images=1)
    assert (case.width, case.height, case.control) == (1024, 1024, "pose")
    assert (case.steps, case.guidance_scale) == (7, 5.0)
    fused = tmp_path / "fused.yaml"
    fused.write_text(
        "base: [{folder: m}]\n"
        "loras: {mara: {path: m.safetensors}}\n"
        "fuse: {mara: null}\n"
        "profiles: {sizes: [[256, 256]]}\n"
    )
    with pytest.raises(ConfigError, match=r"fuses mara; .*fuse: \{\}"):
        load_case(fused, steps=1, images=1)


def test_another_card_than_the_measured_one_is_refused() -> None:
    deployment = CASE.deployment
    execution = deployment.execution.model_copy(update={"gpu": 1})
    with pytest.raises(ConfigError, match=r"execution.gpu: 1: .* choose it with CUDA_VISIBLE_DEVICES"):
        deployment_values(deployment.model_copy(update={"execution": execution}))


def test_presets_are_no_part_of_it(tmp_path: Path) -> None:
    """A default preset would draw less than the others do, and styles may name LoRAs, which are left out."""
    sdxl = deployment_values(load_deployment(ROOT / "configs/sdxl.yaml"))
    assert "presets" not in sdxl
    assert not sdxl["defaults"].keys() & {"preset", "preset_values"}
    for written in write_case_configs(ROOT / "configs/miniature.yaml", tmp_path):
        assert load_deployment(written).presets is None


def test_a_request_is_that_of_the_case() -> None:
    asked = CASE.parameters_of(1, control_end=0.5, guidance_end=0.25)
    assert (asked["seed"], asked["steps"], asked["width"]) == (CASE.seed + 1, 3, 1024)
    assert asked["guidance_end"] == 0.25
    (control,) = asked["controls"]
    assert (control.type, control.end, control.image) == ("pose", 0.5, CASE.control_image(1))
    assert replace(CASE, control=None).parameters_of(0)["controls"] == []


def test_what_is_compared_and_all_sizes_differ_in_their_sizes_only(tmp_path: Path) -> None:
    source = ROOT / "configs/miniature.yaml"
    first, every = map(load_deployment, write_case_configs(source, tmp_path / "configs"))
    whole = load_deployment(source)
    assert (first.profiles.sizes, every.profiles.sizes) == (whole.profiles.sizes[:1], whole.profiles.sizes)
    folders = {first.build_folder, every.build_folder, whole.build_folder}
    assert len(folders) == 3, "no build is in another's way"
    assert (first.build, every.build) == (whole.build, whole.build), "but what they share is made once"
    assert (every.loras, every.swap, every.registry) == ({}, "off", None)
    kept = {"name", "folder", "loras", "swap", "registry", "presets"}
    assert every.model_dump(exclude=kept) == whole.model_dump(exclude=kept)
