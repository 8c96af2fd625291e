from __future__ import annotations

from intaglio_client.bench.caches import cache_lines
from intaglio_client.bench.runs import runs_of
from intaglio_client.bench.workload import Workload

LOAD = {"kind": "closed", "concurrency": [1], "requests": 8, "warm_up": 0}


def lines_of(mix: dict[str, int], **requests: object) -> str:
    data = {"name": "w", "about": "x", "requests": requests, "loads": {"one": {**LOAD, "mix": mix}}}
    (run,) = runs_of(Workload.model_validate(data))
    return " / ".join(cache_lines(run))


def test_prompts_that_repeat_are_said_and_distinct_ones_are_not_cached() -> None:
    repeated = lines_of({"a": 1}, a={"prompts": ["x", "y"], "inputs": {"negative_prompt": "z"}})
    assert "2 different among 8 prompts, and 1 different negative prompts from the cache" in repeated
    fresh = lines_of({"a": 1}, a={"prompts": ["x"], "distinct_prompts": True})
    assert "8 prompts, none twice" in fresh
    assert "LoRA" not in fresh


def test_changes_of_lora_sets_are_counted() -> None:
    plain, night = {"prompts": ["x"]}, {"prompts": ["x"], "loras": {"night": 0.8}}
    assert "2 different, 7 changes" in lines_of({"a": 1, "b": 1}, a=plain, b=night)
    assert "1 different, 0 changes" in lines_of({"b": 1}, b=night)
