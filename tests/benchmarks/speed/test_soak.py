"""A soak asks for everything that is built, and judges memory once it has settled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.measuring.case import Case
from benchmarks.measuring.results import ROOT
from benchmarks.speed.soak import Record, make_jobs, slope

CONFIG = ROOT / "configs/sdxl-seeded.yaml"
CASE = Case(str(CONFIG), 1024, 1024, steps=3, images=2, control="pose")


def test_requests_are_every_size_with_and_without_control_in_each_guidance_mode(tmp_path: Path) -> None:
    jobs = make_jobs(CASE, steps=4)
    assert len(jobs) == len({job.name for job in jobs}) == 4 * 2 * 2
    guided = tmp_path / "guided.yaml"
    text = CONFIG.read_text().replace('["on", "off"]', '["on"]')
    guided.write_text(text.replace("poses: poses", ""))
    assert len(make_jobs(replace(CASE, config=str(guided)), steps=4)) == 4 * 2, "only what is built"


def test_growth_is_per_hundred_values() -> None:
    assert slope([10.0, 12.0, 14.0]) == pytest.approx(200.0)
    assert slope([10.0]) == 0.0


def test_memory_may_grow_until_it_has_settled() -> None:
    settled = [{"diffuse": 100.0, "server": 200.0}] * 6
    processes = [{"diffuse": 50.0, "server": 50.0}, {"diffuse": 50.0, "server": 150.0}, *settled]
    found = Record(processes=processes).summary()
    assert found["host_slope_mib_per_100"] == pytest.approx(0.0, abs=1e-9)
    assert found["host_slopes_mib_per_100"] == pytest.approx({"diffuse": 0.0, "server": 0.0}, abs=1e-9)
    assert found["host_mib"] == [100.0, 300.0]


def test_the_process_that_grows_is_named() -> None:
    processes = [{"diffuse": 50.0 + image, "server": 10.0} for image in range(8)]
    found = Record(processes=processes, card=[float(image) for image in range(8)]).summary()
    assert found["host_slopes_mib_per_100"] == pytest.approx({"diffuse": 100.0, "server": 0.0}, abs=1e-6)
    assert found["card_slope_mib_per_100"] == pytest.approx(100.0)


def test_an_image_unlike_the_first_of_its_job_is_found() -> None:
    record = Record()
    for job, pixels in (("a", b"1"), ("b", b"2"), ("a", b"1"), ("b", b"3")):
        record.add_image(job, pixels)
        record.add_memory({"server": 1 << 20})
    found = record.summary()
    assert (found["images"], found["requests"], found["different_from_first"]) == (4, 2, ["b"])


def test_without_a_card_its_memory_is_not_known() -> None:
    found = Record(processes=[{"server": 1.0}]).summary()
    assert found["card_slope_mib_per_100"] is None
    assert found["card_mib"] is None
