"""The results file of the LoRA benchmark, and its parts."""

from __future__ import annotations

from pathlib import Path

from benchmarks.loras.files import LoraCase
from benchmarks.loras.page import markdown_of
from benchmarks.loras.report import FIGURES
from benchmarks.loras.run import PARTS, gather, write_results
from benchmarks.measuring.results import ROOT, read_json, write_part

MACHINE = {"card": None, "processor": "x", "cores": 4, "commit": "0123", "changed": False, "versions": {}}


def test_every_part_has_a_module_and_a_name_of_its_own() -> None:
    assert all((ROOT / f"{part.module.replace('.', '/')}.py").is_file() for part in PARTS)
    assert len({part.module for part in PARTS}) == len({part.name for part in PARTS}) == len(PARTS)


def test_figures_are_read_from_the_parts(tmp_path: Path) -> None:
    images = {"none_equals_base": True}
    swap = {"to_two": {"seconds": {"median": 1.5}}, "step": {"median": 0.0378}, "images": images}
    load = {"failed": 0, "swaps": 51, "unlike_their_first": 1}
    write_part(tmp_path, "swap", swap)
    write_part(tmp_path, "fused", {"step": {"median": 0.0347}})
    write_part(tmp_path, "served", {"load": load, "retrain": {"file_to_first_image_seconds": 16.0}})
    results = gather(tmp_path, LoraCase("x.yaml"), {})
    verdicts = [found["verdict"] for found in results["figures"].values()]
    assert verdicts == [
        "required",
        "required",
        "reached",
        "reached",
        "missed",
        "missed",
        "not measured",
        "reached",
    ]
    assert list(results["figures"]) == [figure.name for figure in FIGURES]
    assert set(results["parts"]) == {"swap", "fused", "served"}


def test_results_are_written_with_their_page(tmp_path: Path) -> None:
    results = gather(tmp_path, LoraCase("x.yaml"), MACHINE, notes=["Beside other work."])
    write_results(tmp_path / "r.json", results)
    assert read_json(tmp_path / "r.json") == results
    assert (tmp_path / "r.md").read_text() == markdown_of(results)
