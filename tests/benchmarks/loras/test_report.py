"""The figures that the LoRA benchmark is held to."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from benchmarks.loras.report import FIGURES, judge, main
from benchmarks.measuring.results import ROOT, read_json

RESULTS = ROOT / "benchmarks/results/h200_lora_first.json"


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
    results["parts"][part] |= change
    assert verdict in {figure.verdict(results) for figure in FIGURES}
    assert not judge(results)


@pytest.mark.parametrize("name", ["h200_lora", "h200_lora_first"])
def test_the_committed_figures_are_those_of_the_parts(name: str) -> None:
    results = read_json(RESULTS.with_stem(name))
    for figure in FIGURES:
        found = {"value": figure.value(results), "verdict": figure.verdict(results)}
        assert results["figures"][figure.name] == found, figure.name
    assert len(results["figures"]) == len(FIGURES)


def test_the_report_says_what_did_not_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        main(RESULTS)
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert ended.value.exit_code == 0
    assert "not finished: swap: exit 1" in shown
    assert "rank 0 only" in shown


def test_without_a_card_nothing_is_reached() -> None:
    assert not judge(read_json(RESULTS) | {"stand_in": "no card"})
