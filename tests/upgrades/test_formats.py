"""No format changes without its version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from .formats import FORMATS, RECORDED, broken, shape_of, version_of

BEFORE: Any = json.loads(RECORDED.read_text())
ADVICE = (
    "count schema_version up, read or refuse files of before by name, keep some of them in tests/upgrades, "
    "write docs/upgrades.md, and run python -m tests.upgrades.formats"
)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_changes_with_its_version_only(name: str) -> None:
    before, kind = BEFORE[name], FORMATS[name]
    problems = broken(before["shape"], shape_of(kind))
    assert version_of(kind) != before["version"] or not problems, f"{name}: {problems}; {ADVICE}"


def test_every_format_is_recorded() -> None:
    assert set(BEFORE) == set(FORMATS)
    page = (Path(__file__).parents[2] / "docs" / "upgrades.md").read_text()
    assert [name for name in FORMATS if f"`{name}`" not in page] == []


class Inner(BaseModel):
    size: int


class Before(BaseModel):
    name: str
    inner: Inner
    count: int | None = None


class Added(Before):
    more: list[Inner] = []


class Required(Before):
    more: int


class Narrowed(BaseModel):
    name: str
    inner: Inner
    count: int = 0


class Renamed(BaseModel):
    name: str
    outer: Inner
    count: int | None = None


@pytest.mark.parametrize(
    ("now", "problems"),
    [
        (Before, []),
        (Added, []),
        (Required, ["more must be there, and was not"]),
        (Narrowed, ["count no longer takes null"]),
        (
            Renamed,
            ["inner is gone", "inner.size is gone", "outer must be there, and was not"],
        ),
    ],
)
def test_what_breaks_a_format(now: type[BaseModel], problems: list[str]) -> None:
    assert broken(shape_of(Before), shape_of(now)) == problems
