"""Until K are accepted or M tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from intaglio_client.batch.combining import Items, items_of
from intaglio_client.batch.limits import Quota
from intaglio_client.batch.spec import LimitsSpec, read_spec


def quota(folder: Path, **limits: Any) -> tuple[Quota, Items]:
    path = folder / "spec.yaml"
    inputs = {"prompt": ["a", "b"], "seed": {"from": 0, "count": 10}}
    path.write_text(yaml.safe_dump({"inputs": inputs, "limits": limits}))
    items = items_of(read_spec(path), path)
    return Quota(LimitsSpec(**limits), items), items


def test_without_limits_every_picture_is_tried(tmp_path: Path) -> None:
    found, _ = quota(tmp_path)
    for index in range(20):
        assert not found.is_full(index)
        found.count(index, accepted=False)
        assert found.left(index + 1) == 19 - index
    assert found.short_of == []


def test_it_is_full_when_enough_are_accepted(tmp_path: Path) -> None:
    found, _ = quota(tmp_path, accepted=2)
    assert found.left(0) == 4, "one of two is taken to be accepted while nothing is known"
    for index, accepted in enumerate([True, False, True]):
        assert not found.is_full(index)
        found.count(index, accepted=accepted)
    assert found.is_full(3)
    assert found.left(3) == 0
    assert found.short_of == []


def test_it_is_full_when_enough_were_tried(tmp_path: Path) -> None:
    found, _ = quota(tmp_path, accepted=2, tried=3)
    for index in range(3):
        assert not found.is_full(index)
        found.count(index, accepted=index == 0)
    assert found.is_full(3)
    assert found.left(3) == 0
    assert found.short_of == [""]


def test_what_is_left_is_the_sum_of_what_is_left_in_each_group(tmp_path: Path) -> None:
    """One group after another is looked at, and the whole is the same as if all were counted anew."""
    found, items = quota(tmp_path, accepted=3, tried=8, per="prompt")
    whole = found.left(0)
    assert whole == 12, "twice three of one in two"
    for index in range(len(items)):
        if not found.is_full(index):
            found.count(index, accepted=index % 3 == 0)
        again = Quota(LimitsSpec(accepted=3, tried=8, per="prompt"), items)
        for earlier in range(index + 1):
            if not again.is_full(earlier):
                again.count(earlier, accepted=earlier % 3 == 0)
        assert found.left(index + 1) == again.left(index + 1)
    assert found.left(len(items)) == 0


def test_each_group_has_limits_of_its_own(tmp_path: Path) -> None:
    found, items = quota(tmp_path, accepted=1, tried=4, per="prompt")
    tried = []
    for index in range(len(items)):
        if not found.is_full(index):
            tried.append(index)
            found.count(index, accepted=items[index].inputs["seed"] == 2 and index < 10)
            assert found.left(index + 1) <= 8
    assert tried == [0, 1, 2, 10, 11, 12, 13]
    assert found.left(14) == 0
    assert found.short_of == ['{"prompt": "b"}']
