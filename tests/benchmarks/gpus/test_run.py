"""The results file of one card beside several, and its parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.gpus.configs import available_counts, write_configs
from benchmarks.gpus.load import arrivals
from benchmarks.gpus.page import markdown_of
from benchmarks.gpus.run import gather, parts_of, write_results
from benchmarks.measuring.results import ROOT, read_json, write_part
from intaglio.contract.config import load_deployment
from intaglio.errors import ConfigError

MACHINE = {"card": None, "processor": "x", "cores": 4, "commit": "0123", "changed": False, "versions": {}}
CASE = {
    "config": "x.yaml",
    "width": 64,
    "height": 64,
    "steps": 2,
    "guidance_scale": 5.0,
    "control": None,
}


def measured(count: int, rate: float, p95: float, vae: float = 0.02) -> dict[str, Any]:
    seconds = {"p50": 1.0, "p90": 2.0, "p95": p95, "p99": 9.0}
    return {
        "count": count,
        "offline": {"images_per_second": rate, "stage_seconds": {"denoise": 1.0, "vae": vae}},
        "open": {"requests": 50, "seconds": seconds},
    }


def test_every_count_is_a_part_with_a_module() -> None:
    parts = parts_of([1, 2])
    assert [part.name for part in parts] == ["build", "served_1", "served_2"]
    assert all((ROOT / f"{part.module.replace('.', '/')}.py").is_file() for part in parts)
    assert parts[0].case == parts[1].case != parts[2].case


def test_counts_are_compared_with_one(tmp_path: Path) -> None:
    write_part(tmp_path, "served_1", measured(1, 0.6, 6.0))
    write_part(tmp_path, "served_2", measured(2, 1.17, 4.5, vae=0.03))
    write_part(tmp_path, "served_4", {"count": 4, "failed": "cut off"})
    results = gather(tmp_path, CASE, MACHINE)
    two = results["scaling"]["2"]
    assert (round(two["throughput_ratio"], 3), round(two["p95_ratio"], 3)) == (1.95, 0.75)
    assert two["slower_stages"] == {"vae": 0.01}
    assert set(results["scaling"]) == {"1", "2"}
    verdicts = [figure["verdict"] for figure in results["figures"].values()]
    assert verdicts == ["required", "not measured", "reached", "not measured"]
    page = markdown_of(results)
    assert "| 2 | 1.170 | 1.95 | 1.00 | 4.50 | 0.75 | 50 | vae +0.01 |" in page
    assert "Not finished: `served_4`: cut off" in page
    write_results(tmp_path / "new" / "r.json", results)
    assert read_json(tmp_path / "new" / "r.json") == results


def test_requests_come_at_random_times_of_that_rate() -> None:
    times = arrivals(2.0, 500.0, least=4)
    assert times == sorted(times) == arrivals(2.0, 500.0, least=4)
    assert 900 < len(times) < 1100
    assert max(times) <= 500
    assert len(arrivals(0.001, 1.0, least=4)) == 4


def test_each_count_has_a_configuration_of_its_own(tmp_path: Path) -> None:
    """Here without a card."""
    written = write_configs(ROOT / "configs" / "sdxl-seeded.yaml", tmp_path, [1, 2])
    first, second = (load_deployment(path) for path in written.values())
    assert (first.server.instances, second.server.instances) == (1, 2)
    assert first.build == second.build == ROOT / "build"
    values = [yaml.safe_load(path.read_text()) for path in written.values()]
    assert all(value.pop("server") for value in values)
    assert values[0] == values[1]


def test_counts_are_numbers_that_there_are_cards_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_counts("2,1,4") == [1, 2, 4]
    monkeypatch.setattr("benchmarks.gpus.configs.gpu_count", lambda: 2)
    assert available_counts("1,2,4") == [1, 2]
    for counts in ("4,8", "0", "two"):
        with pytest.raises(ConfigError, match="counts: "):
            available_counts(counts)
