"""The table of parts, and the results file that is gathered from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.measuring.case import Case
from benchmarks.measuring.results import ROOT, describe_machine, write_part
from benchmarks.measuring.timing import spread
from benchmarks.speed.run import PARTS, agreement, gather, write_results

CASE = Case(str(ROOT / "configs/sdxl-seeded.yaml"), 1024, 1024, steps=3, images=2, control="pose")


def test_every_part_has_a_module_and_a_name_of_its_own() -> None:
    assert all((ROOT / f"{part.module.replace('.', '/')}.py").is_file() for part in PARTS)
    assert len({part.name for part in PARTS}) == len(PARTS)


def test_images_are_compared_with_eagers(tmp_path: Path) -> None:
    for name, value in (("eager", 10), ("served", 11)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "0.npy", np.full((4, 4, 3), value, np.uint8))
    assert agreement(tmp_path, CASE) == {"served": [48.13]}


def test_results_hold_what_was_done(tmp_path: Path) -> None:
    write_part(tmp_path, "eager", {"seconds": {"end_to_end": spread([1.0])}, "stages": {}})
    results = gather(tmp_path, CASE, describe_machine(), note="Two other runs beside it.")
    assert list(results["parts"]) == ["eager"]
    assert results["case"]["config"] == "sdxl-seeded.yaml"
    assert {"versions", "commit", "card", "processor"} <= set(results["machine"])
    write_results(tmp_path / "r.json", results)
    assert json.loads((tmp_path / "r.json").read_text()) == results
    page = (tmp_path / "r.md").read_text()
    assert page.startswith("# ")
    assert "\nTwo other runs beside it.\n" in page
    assert (tmp_path / "r.svg").read_text().startswith("<svg")
