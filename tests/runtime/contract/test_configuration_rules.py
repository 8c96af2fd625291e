"""A rule says what is done with a value, and the check does it."""

from __future__ import annotations

from typing import Any

import pytest

from intaglio.contract.configuration_rules import (
    BUILT,
    REQUIRED,
    check_values,
    only,
    only_each,
    read,
    values_read,
    without,
)
from intaglio.errors import ConfigError

RULES = {
    "built": BUILT,
    "read": read(7),
    "needed": read(REQUIRED),
    "without": without("it is a comment"),
    "only": only(1, 2, why="three is another model"),
    "absent": only("a", default=None, why="it must be said"),
    "each": only_each("x", "y", default=("x",), why="other blocks are of other models"),
}
GOOD: dict[str, Any] = {"needed": 1, "absent": "a"}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"built": object()},
        {"without": "anything"},
        {"only": 2},
        {"each": "y"},
        {"each": ["x", "y"]},
        {"unknown": None},
        {"unknown": []},
        {"unknown": False},
    ],
)
def test_what_is_computed_passes(values: dict[str, Any]) -> None:
    check_values(RULES, GOOD | values, what="here")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"only": 3}, "here says only: 3; supported is 1 or 2: three is another model"),
        ({"each": ["x", "z"]}, r"here says each: \['x', 'z'\]; supported is 'x' or 'y': other blocks"),
        ({"needed": None}, "here has no needed; it must have needed"),
        ({"unknown": 0.5}, "here says unknown: 0.5, which intaglio does not know"),
    ],
)
def test_everything_else_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_values(RULES, GOOD | values, what="here")


def test_an_absent_key_has_the_default_of_the_library() -> None:
    with pytest.raises(ConfigError, match="here says no absent, which means None; supported is 'a'"):
        check_values(RULES, {"needed": 1}, what="here")
    with pytest.raises(ConfigError, match="here has no needed"):
        check_values(RULES, {"absent": "a"}, what="here")
    assert values_read(RULES, GOOD) == {"read": 7, "needed": 1, "absent": "a", "only": 1, "each": ("x",)}
