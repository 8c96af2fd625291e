"""What `least_growth` says of a server whose processes come and go."""

from __future__ import annotations

import pytest

from .growth import least_growth


def test_what_is_taken_once_does_not_count() -> None:
    assert least_growth([{"a": 10, "b": 5}, {"a": 90, "b": 6}, {"a": 91, "b": 8}]) == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ([{"a": 1, "b": 1}, {"a": 1, "b": 1}, {"a": 1}], r"that ended: \['b'\], that began: \[\]"),
        ([{"a": 1}, {"a": 1, "b": 1}, {"a": 1}], r"that ended: \[\], that began: \['b'\]"),
    ],
)
def test_a_process_that_came_or_went_is_named(sizes: list[dict[str, int]], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        least_growth(sizes)
