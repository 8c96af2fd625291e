"""Which weights a refit gives together."""

from __future__ import annotations

from benchmarks.loras.refit import with_joined


def test_weights_come_with_those_that_are_joined_with_them() -> None:
    assert with_joined(["c", "a"], [frozenset("ab"), frozenset("xy")]) == ["c", "a", "b"]


def test_a_group_comes_once() -> None:
    assert with_joined(["b", "a"], [frozenset("ab")]) == ["a", "b"]
