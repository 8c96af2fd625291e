from __future__ import annotations

import base64
import itertools
import statistics
import struct
from typing import Any

import pytest

from intaglio.contract.models import SDXL
from intaglio.errors import ConfigError
from intaglio_client.bench.runs import Asked, arrivals, first_of_each_kind, input_data, runs_of
from intaglio_client.bench.workload import Workload
from intaglio_client.controls import Control

from .runs import workload_of

CLOSED = {"kind": "closed", "concurrency": [1, 4]}


def test_a_load_has_a_run_for_each_value_and_every_request_a_seed_of_its_own() -> None:
    first, second = runs_of(workload_of(clients={**CLOSED, "warm_up": 2}))
    assert (first.name, first.concurrency, second.name, second.concurrency) == (
        "clients-1",
        1,
        "clients-4",
        4,
    )
    assert (first.requests, first.total, len(first.asked)) == (12, 14, 14)
    assert [asked.seed for asked in first.asked] == list(range(14))
    assert [asked.prompt for asked in first.asked[:3]] == ["a", "b", "a"]


def test_distinct_prompts_are_those_of_no_other_load() -> None:
    loads = workload_of(one={**CLOSED, "warm_up": 2}, two={"kind": "open", "rates": [0.5]})
    plain = loads.requests["plain"].model_copy(update={"distinct_prompts": True})
    loads = loads.model_copy(update={"requests": {"plain": plain}})
    prompts = [asked.prompt for run in runs_of(loads) for asked in run.asked]
    assert len(set(prompts)) == len(prompts) == 2 * 14 + 13
    assert prompts[1] == "b, number 2 of one 1"


def test_a_mixture_has_the_weights_that_are_asked_for_and_is_spread() -> None:
    mix = {"plain": 3, "posed": 1}
    (run,) = runs_of(workload_of(mixed={**CLOSED, "concurrency": [1], "mix": mix, "warm_up": 0}))
    kinds = [asked.kind for asked in run.asked]
    assert kinds.count("plain") == 9
    assert kinds.count("posed") == 3
    longest = max(len(list(group)) for _, group in itertools.groupby(kinds))
    assert longest == 3
    assert [asked.prompt for asked in run.asked if asked.kind == "posed"] == ["c"] * 3


def test_growth_of_clients_has_more_under_way() -> None:
    runs = runs_of(workload_of(many={"kind": "growth", "vary": "clients", "values": [1, 2, 4]}))
    assert [run.concurrency for run in runs] == [1, 2, 4]
    assert runs[0].asked[0].parameters == runs[2].asked[0].parameters


def test_growth_of_lora_sets_takes_them_in_turn() -> None:
    asked: dict[str, Any] = {
        "requests": {"styled": {"prompts": ["a"], "loras": {"night": 0.8, "pencil": None}}},
        "loads": {
            "sets": {
                "kind": "growth",
                "vary": "lora_sets",
                "values": [0, 1, 2],
                "requests": 3,
                "mix": {"styled": 1},
            }
        },
    }
    workload = Workload.model_validate({"name": "w", "about": "a test", **asked})
    found = [
        [[lora.id for lora in one.parameters["loras"]] for one in run.asked] for run in runs_of(workload)
    ]
    assert found == [[[]] * 4, [["night"]] * 4, [["night"], ["pencil"], ["night"], ["pencil"]]]
    assert runs_of(workload)[1].asked[0].parameters["loras"][0].weight == 0.8
    asked["loads"]["sets"]["values"] = [1, 3]
    with pytest.raises(
        ConfigError, match="growth of lora_sets: 3 are asked for, and the request has 2 LoRAs"
    ):
        runs_of(Workload.model_validate({"name": "w", "about": "a test", **asked}))


def test_growth_changes_one_input() -> None:
    runs = runs_of(workload_of(steps={"kind": "growth", "vary": "steps", "values": [2, 8]}))
    assert [run.asked[0].parameters["steps"] for run in runs] == [2, 8]
    runs = runs_of(workload_of(size={"kind": "growth", "vary": "size", "values": [[64, 128], [128, 128]]}))
    assert [run.value for run in runs] == [64 * 128, 128 * 128]
    assert runs[0].asked[0].parameters["width"] == 64
    posed = {"kind": "growth", "vary": "controls", "mix": {"posed": 1}}
    runs = runs_of(workload_of(controls={**posed, "values": [0, 1]}))
    assert [len(run.asked[0].parameters["controls"]) for run in runs] == [0, 1]
    with pytest.raises(ConfigError, match="the request has 1"):
        runs_of(workload_of(controls={**posed, "values": [1, 2]}))


def test_a_stream_has_inputs_of_its_own() -> None:
    load = {"kind": "streaming", "concurrency": [1], "preview": 128, "slice_steps": 2}
    (run,) = runs_of(workload_of(watched=load))
    assert run.model.name == "sdxl_stream"
    (first, *_) = input_data(run.asked)["data"]
    assert first["preview"] == {"content": [128], "shape": [1]}
    assert first["slice_steps"]["content"] == [2]


def test_what_is_sent_decides_the_digest() -> None:
    def digest(**changes: object) -> str:
        return runs_of(workload_of(one={**CLOSED, **changes}))[0].digest()

    assert digest() == digest()
    assert len({digest(), digest(warm_up=3), digest(requests=13), digest(concurrency=[2])}) == 4


def test_kinds_differ_in_more_than_their_seed() -> None:
    loads = {"steps": {"kind": "growth", "vary": "steps", "values": [2, 8]}, "clients": CLOSED}
    kinds = first_of_each_kind(runs_of(workload_of(**loads)))
    assert [asked.parameters["steps"] for asked in kinds] == [2, 8, 4]


def test_bytes_travel_in_base64_with_their_length() -> None:
    picture = b"\x89PNG\x00\xff"
    asked = Asked("x", "é", {"seed": 0, "controls": [Control("canny", image=picture)]}, SDXL)
    (entry,) = input_data([asked])["data"]
    assert entry["prompt"] == {"content": ["é"], "shape": [1]}
    raw = base64.b64decode(entry["images"]["content"]["b64"])
    assert raw == struct.pack("<I", len(picture)) + picture
    assert entry["images"]["shape"] == [1]


def test_arrivals_are_poisson_with_the_rate_and_the_same_every_time() -> None:
    gaps = arrivals(2.0, 4000)
    assert gaps == arrivals(2.0, 4000)
    assert all(gap >= 1 for gap in gaps)
    assert sum(gaps) / 1e6 == pytest.approx(2000, rel=1e-4)
    assert sum(arrivals(0.5, 6)) / 1e6 == pytest.approx(12, rel=1e-4), "few have the rate, too"
    # The gaps of a Poisson process are exponential: the deviation is the mean, and e^-1 of them are longer.
    mean = statistics.fmean(gaps)
    assert statistics.stdev(gaps) == pytest.approx(mean, rel=0.1)
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03)
