"""The page of a run."""

from __future__ import annotations

import pytest

from benchmarks.measuring.results import ROOT, read_json
from benchmarks.speed.page import markdown_of

from .runs import Change, changed_results, good_results

RESULTS = ROOT / "benchmarks/results/h200_third.json"


def test_the_page_says_where_what_and_how_fast() -> None:
    page = markdown_of(good_results())
    for line in (
        "# Test Card, 1024x1024, 30 Euler steps",
        "Driver 1.2, x, 4 cores, commit 0123456789ab.",
        "| over gRPC against diffusers eager | >= 1.45 x | 2 x | 1.69 x | required |",
        "| served | 1.420 | 1.420 to 1.420 (n=5) | 36.0 | 12288 |",
        "| unet | 47.00 | 33.00 |  | 30.00 |",
        "| CFG step alone, one after another |  | 34.00 |  | 30.00 |",
        "| engines of a step in turn |  |  |  | 45.00 |",
        "| whole step in an image |  | 51.00 |  | 47.00 |",
        "| controlnet | 23.00 | 17.00 |  | 15.00 |",
        "| ControlNet every 2nd step | 1.290 | 1.290 to 1.290 (n=5) | 0.86 |",
        "5 ControlNets, 2 of them open at the same time.",
        "| with a swap | 2.350 | 2.350 to 2.350 (n=5) |",
        "| 2 ControlNets | 62.60 |",
        "| as served | load | 0.600 |",
        "| weights apart, from the mapped file | failed | ValueError: no |",
        "| 1280x720 | 1.500 | 1.500 to 1.500 (n=10) |",
        "| guidance off after half | 1.100 |",
        "| query | 33.00 | 0.002 |",
    ):
        assert f"\n{line}\n" in f"\n{page}", line


def test_what_was_not_measured_is_left_out_or_said() -> None:
    partial = good_results()
    partial["parts"] = {"eager": partial["parts"]["eager"]}
    page = markdown_of(partial)
    assert "not measured" in page
    assert "| served |" not in page
    assert "| size |" not in page


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.update(served={"failed": "exit 1"}),
        lambda p: p["engines"]["stages"].pop("unet"),
        lambda p: p.update(engines={"failed": "exit 1"}),
        lambda p: p.pop("build_sizes"),
        lambda p: p.update(build_sizes={"failed": "exit 1"}),
        lambda p: p.update(served_sizes={"failed": "exit 1"}),
        lambda p: p.update(controls={"failed": "exit 1"}),
    ],
)
def test_a_part_that_failed_still_gives_a_page(change: Change) -> None:
    """The page is written after every part: an error there would end the run."""
    assert "not measured" in markdown_of(changed_results(change))


def test_a_page_without_a_card_says_so_first() -> None:
    page = markdown_of(good_results() | {"stand_in": "for debugging", "note": "Beside other work."})
    assert page.splitlines()[2:5] == ["**for debugging**", "", "Beside other work."]


@pytest.mark.parametrize("name", ["h200_third", "h200"])
def test_the_committed_page_is_that_of_its_results(name: str) -> None:
    results = RESULTS.with_stem(name)
    assert results.with_suffix(".md").read_text(encoding="utf-8") == markdown_of(read_json(results))
