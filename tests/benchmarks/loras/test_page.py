"""The page of the LoRA benchmark."""

from __future__ import annotations

import pytest

from benchmarks.loras.page import markdown_of
from benchmarks.measuring.results import ROOT, read_json

RESULTS = ROOT / "benchmarks/results/h200_lora_first.json"


@pytest.mark.parametrize("name", ["h200_lora_first", "h200_lora"])
def test_the_committed_page_is_that_of_its_results(name: str) -> None:
    results = RESULTS.with_stem(name)
    assert results.with_suffix(".md").read_text(encoding="utf-8") == markdown_of(read_json(results))


def test_a_refusal_and_an_unfinished_part_are_said() -> None:
    results = read_json(RESULTS)
    refused = {"refused": "wants others"}
    counts = {"3": {"bytes": 2 << 20, "pageable": {"median": 1.0}, "pinned": refused, "device": refused}}
    results["parts"] = {"refit": {"counts": counts, "failed": "exit 1"}}
    page = markdown_of(results)
    assert "| 3 weights | 2 | 1.000 | refused | refused |" in page
    assert "* Not finished: `refit`: exit 1" in page
    assert "|  | not measured |" in page
