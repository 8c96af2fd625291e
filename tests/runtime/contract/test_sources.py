"""Where weights come from: exactly one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from intaglio.contract.sources import ControlNetSource, ServedControl, Source, served_controls


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "exactly one of"),
        ({"folder": "a", "hub": "b/c"}, "exactly one of"),
        ({"architecture": "sdxl-reduced"}, "architecture and seed go together"),
        ({"folder": "a", "seed": 1}, "architecture and seed go together"),
        ({"folder": "a", "revision": "main"}, "revision goes with hub only"),
        ({"file": "a.ckpt"}, r"must be \.safetensors"),
        ({"hub": "a/b/c"}, "hub"),
    ],
)
def test_impossible_sources(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Source.model_validate(values)


def test_names_for_people() -> None:
    assert str(Source(hub="a/b", revision="main")) == "hub:a/b@main"
    assert str(Source(architecture="sdxl-reduced", seed=3)) == "sdxl-reduced with weights of seed 3"
    assert str(Source(folder=Path("/a"))) == "/a"


def controlnet(**values: Any) -> ControlNetSource:
    return ControlNetSource.model_validate({"folder": "a"} | values)


def test_a_union_serves_controls_by_index_and_by_name() -> None:
    union = {
        "pose": "openpose",
        "sketch": 2,
        "streets": {"mode": "segment", "type": "segmentation", "palette": "cityscapes"},
    }
    sources = {"edges": controlnet(type="canny"), "all": controlnet(union=union)}
    network = "controlnet_union.all"
    assert served_controls(sources) == {
        "edges": ServedControl(type="canny", network="controlnet.edges"),
        "pose": ServedControl(type="pose", network=network, mode=0),
        "sketch": ServedControl(type="sketch", network=network, mode=2),
        "streets": ServedControl(type="segmentation", network=network, mode=5, palette="cityscapes"),
    }


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "give either type .* or union"),
        ({"type": "pose", "union": {"pose": 0}}, "give either type .* or union"),
        ({"palette": "ade20k", "union": {"pose": 0}}, "palette belongs to one of the controls"),
        ({"folder": None, "architecture": "sdxl-reduced", "seed": 1, "union": {"pose": 0}}, "of one type"),
        ({"union": {"pose": "sitting"}}, "union.pose.mode"),
        ({"union": {"pose": 32}}, "union.pose.mode"),
        ({"union": {"pose": True}}, "union.pose.mode"),
        ({"union": {"pose": {"type": "pose"}}}, "union.pose.mode"),
        ({"union": {"POSE": 0}}, "union.POSE"),
    ],
)
def test_impossible_unions(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        controlnet(**values)


def test_two_controls_of_one_id_are_refused() -> None:
    sources = {"pose": controlnet(type="pose"), "all": controlnet(union={"pose": 0})}
    with pytest.raises(ValueError, match=r"controlnet_union.all and controlnet.pose both serve .* 'pose'"):
        served_controls(dict(reversed(sources.items())))
