"""The filter `detector`: boxes, counts and rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.contract.filters import filter_from_entry
from intaglio.errors import ConfigError
from intaglio_client.filters.opening import opened_filters
from intaglio_client.filters.verdict import Candidate

from ...runtime.objects.graphs import FOUND, NAMES, SIDE, end_to_end, write_yolo

GREY = Candidate(np.full((SIDE, SIDE, 3), 128, np.uint8), "a.png")


def entry(folder: Path, **values: Any) -> Any:
    write_yolo(folder / "a.onnx", end_to_end())
    return filter_from_entry({"kind": "detector", "network": "a.onnx", **values}, folder=folder)


def test_boxes_and_counts_of_what_is_found(tmp_path: Path) -> None:
    spec = entry(tmp_path)
    assert spec.files == (tmp_path / "a.onnx",)
    with opened_filters([spec]) as (judge,):
        verdict = judge(GREY)
    assert verdict.accepted
    assert verdict.scores == {"bus": 1, "person": 2}
    for box, (class_id, score, *corners) in zip(
        verdict.boxes, sorted(FOUND, key=lambda one: -one[1]), strict=True
    ):
        assert (box.class_id, box.class_name) == (class_id, NAMES[class_id])
        assert box.confidence == pytest.approx(score)
        assert [box.x0, box.y0, box.x1, box.y1] == pytest.approx(corners)


def test_a_broken_rule_rejects_with_its_reason(tmp_path: Path) -> None:
    spec = entry(tmp_path, require=[{"class": "person", "at_least": 2, "confidence": 0.5}])
    with opened_filters([spec]) as (judge,):
        verdict = judge(GREY)
    assert not verdict.accepted
    assert verdict.reason == "1 person, required: at least 2 (confidence 0.5)"
    assert len(verdict.boxes) == 3, "what was found is kept, to see why"


def test_what_cannot_work_is_named_before_the_first_picture(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="class 'truck': the network does not know it"),
        opened_filters([entry(tmp_path, forbid=[{"class": "truck"}])]),
    ):
        pass
    with pytest.raises(ValueError, match="at_lest"):
        entry(tmp_path, require=[{"class": "bus", "at_lest": 1}])
    missing = filter_from_entry({"kind": "detector", "network": "none.onnx"}, folder=tmp_path)
    with pytest.raises(ConfigError, match=r"none\.onnx: no such file"), opened_filters([missing]):
        pass
