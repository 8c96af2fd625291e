"""Parts, what is kept of them, and what a run that is cut short leaves."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.measuring.ballast import ballast
from benchmarks.measuring.case import Case, load_case, psnr, spread, write_case_configs
from benchmarks.measuring.results import describe_machine, read_part, write_part
from benchmarks.speed import run as side_by_side
from benchmarks.speed.building import HostWatch
from benchmarks.speed.run import (
    PARTS,
    Part,
    agreement,
    due_parts,
    gather,
    run_part,
    wanted_parts,
    write_results,
)
from benchmarks.speed.soak import make_jobs, slope, summarise
from intaglio.contract.config import load_deployment
from intaglio.errors import ConfigError

ROOT = Path(__file__).parents[3]
CASE = Case(str(ROOT / "configs/sdxl-seeded.yaml"), 1024, 1024, steps=3, images=2, control="pose")


def test_a_case_survives_its_file(tmp_path: Path) -> None:
    CASE.write(tmp_path / "case.json")
    assert Case.read(tmp_path / "case.json") == CASE
    assert len({CASE.prompt_of(image) for image in range(5)}) == 5, "no cache of prompts helps"
    assert CASE.control_image(0) == CASE.control_image(0)
    assert len({CASE.control_image(image) for image in range(-1, 2)}) == 3, "no cache of pictures helps"


def test_a_case_is_the_first_size_with_the_first_control(tmp_path: Path) -> None:
    case = load_case(ROOT / "configs/sdxl-seeded.yaml", steps=7, images=1)
    assert (case.width, case.height, case.control, case.steps, case.guidance_scale) == (
        1024,
        1024,
        "pose",
        7,
        5.0,
    )
    fused = tmp_path / "fused.yaml"
    fused.write_text(
        "base: [{folder: m}]\nloras: {mara: {path: m.safetensors}}\nfuse: {mara: null}\nprofiles: {sizes: [[256, 256]]}\n"
    )
    with pytest.raises(ConfigError, match=r"fuses mara; .*fuse: \{\}"):
        load_case(fused, steps=1, images=1)


def test_what_is_compared_and_all_sizes_differ_in_their_sizes_only(tmp_path: Path) -> None:
    source = ROOT / "configs/miniature.yaml"
    first, every = map(load_deployment, write_case_configs(source, tmp_path / "configs"))
    whole = load_deployment(source)
    assert (first.profiles.sizes, every.profiles.sizes) == (whole.profiles.sizes[:1], whole.profiles.sizes)
    assert len({first.build_folder, every.build_folder, whole.build_folder}) == 3, (
        "no build is in another's way"
    )
    assert (first.build, every.build) == (whole.build, whole.build), "but what they share is made once"
    assert (every.loras, every.swap, every.registry) == ({}, "off", None)
    kept = {"name", "folder", "loras", "swap", "registry"}
    assert every.model_dump(exclude=kept) == whole.model_dump(exclude=kept)


def test_spread_and_agreement() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.5, "high": 2.5, "n": 3}
    assert spread([4.0]) == {"median": 4.0, "low": 4.0, "high": 4.0, "n": 1}
    with pytest.raises(ValueError, match="nothing was measured"):
        spread([])
    flat = np.full((4, 4, 3), 100, np.uint8)
    assert psnr(flat, flat) == 100.0
    assert psnr(flat, flat + 1) == pytest.approx(48.13, abs=0.01)
    with pytest.raises(ValueError, match="cannot be compared"):
        psnr(flat, flat[:2])


def test_images_are_compared_with_eagers(tmp_path: Path) -> None:
    for name, value in (("eager", 10), ("served", 11)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "0.npy", np.full((4, 4, 3), value, np.uint8))
    assert agreement(tmp_path, CASE) == {"served": [48.13]}


def module_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Part:
    (tmp_path / "toy.py").write_text(body)
    monkeypatch.setattr(side_by_side, "ROOT", tmp_path)
    return Part("toy", ("toy",))


def test_a_part_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = module_part(tmp_path, monkeypatch, "raise ValueError('no such thing')")
    values = run_part(part, tmp_path / "case.json", tmp_path, seconds=60, extra=[])
    assert "exit 1" in values["failed"]
    assert "ValueError: no such thing" in values["failed"]
    assert read_part(tmp_path, "toy") == values


def test_a_part_cut_off_keeps_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "import pathlib, sys, time; pathlib.Path(sys.argv[2], 'toy.json').write_text('{\"seconds\": 1}'); time.sleep(60)"
    part = module_part(tmp_path, monkeypatch, body)
    values = run_part(part, tmp_path / "case.json", tmp_path, seconds=2, extra=[])
    assert values["seconds"] == 1
    assert values["failed"].startswith("cut off after 2 s")


def test_results_hold_what_was_done(tmp_path: Path) -> None:
    write_part(tmp_path, "eager", {"seconds": {"end_to_end": spread([1.0])}, "stages": {}})
    results = gather(tmp_path, CASE, describe_machine(ROOT), note="Two other runs beside it.")
    assert list(results["parts"]) == ["eager"]
    assert results["case"]["config"] == "sdxl-seeded.yaml"
    assert {"versions", "commit", "card", "processor"} <= set(results["machine"])
    write_results(tmp_path / "r.json", results)
    assert json.loads((tmp_path / "r.json").read_text()) == results
    assert (tmp_path / "r.md").read_text().startswith("# ")
    assert "\nTwo other runs beside it.\n" in (tmp_path / "r.md").read_text()
    assert (tmp_path / "r.svg").read_text().startswith("<svg")


def test_parts_are_known() -> None:
    assert wanted_parts(PARTS, "all") == list(PARTS)
    assert [part.name for part in wanted_parts(PARTS, "soak,build")] == ["build", "soak"]
    with pytest.raises(ConfigError, match=r"parts: x is unknown; parts are build, served"):
        wanted_parts(PARTS, "x")
    assert all((ROOT / f"{part.arguments[0].replace('.', '/')}.py").is_file() for part in PARTS)


def test_a_build_says_what_memory_was_its_own() -> None:
    with HostWatch() as host:
        taken = np.ones(100 << 17)  # 100 MiB
        time.sleep(0.6)
        del taken
    assert 100 << 10 < host.kib <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_ballast_without_a_card_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measuring.ballast.read_card_memory", lambda: None)
    with ballast(15.5) as free:
        assert free is None


def test_ballast_that_cannot_be_taken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measuring.ballast.read_card_memory", object)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ConfigError, match="ballast: ended without a word"), ballast(15.5):
        pass


def test_soak_requests_differ_and_memory_is_judged_once_settled(tmp_path: Path) -> None:
    jobs = make_jobs(CASE, steps=4)
    assert len(jobs) == len({job.name for job in jobs}) == 4 * 2 * 2
    guided = tmp_path / "guided.yaml"
    guided.write_text(
        (ROOT / "configs/sdxl-seeded.yaml")
        .read_text()
        .replace('["on", "off"]', '["on"]')
        .replace("poses: poses", "")
    )
    assert len(make_jobs(replace(CASE, config=str(guided)), steps=4)) == 4 * 2, "what is built"
    assert slope([10.0, 12.0, 14.0]) == pytest.approx(200.0)
    assert slope([10.0]) == 0.0
    growing_then_flat = [
        {"diffuse": 50.0, "server": 50.0},
        {"diffuse": 50.0, "server": 150.0},
        *[{"diffuse": 100.0, "server": 200.0}] * 6,
    ]
    found = summarise({"a": "1"}, ["a"], [], growing_then_flat)
    assert found["host_slope_mib_per_100"] == pytest.approx(0.0, abs=1e-9)
    assert found["host_slopes_mib_per_100"] == pytest.approx({"diffuse": 0.0, "server": 0.0}, abs=1e-9)
    assert found["host_mib"] == [100.0, 300.0]
    growing = summarise({"a": "1"}, [], [], [{"diffuse": 50.0 + image, "server": 10.0} for image in range(8)])
    assert growing["host_slopes_mib_per_100"] == pytest.approx({"diffuse": 100.0, "server": 0.0}, abs=1e-6)
    assert found["card_slope_mib_per_100"] is None
    assert (found["images"], found["different_from_first"]) == (8, ["a"])


def test_only_what_ended_well_counts_as_done(tmp_path: Path) -> None:
    parts = [Part(name, (), least_seconds=10) for name in ("done", "failed", "killed", "new")]
    write_part(tmp_path, "done", {"wall_seconds": 1.0})
    write_part(tmp_path, "failed", {"wall_seconds": 1.0, "failed": "exit 1"})
    write_part(tmp_path, "killed", {"seconds": {}})

    def due(seconds: float, *, again: bool = False) -> list[str]:
        ends = time.monotonic() + seconds
        return [
            part.name
            for part, _ in due_parts(parts, tmp_path, ends=ends, again=again, console=Console(quiet=True))
        ]

    assert due(60) == ["failed", "killed", "new"]
    assert due(60, again=True) == ["done", "failed", "killed", "new"]
    assert due(5) == []
