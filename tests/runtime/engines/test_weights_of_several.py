"""Weights of several engines are refitted as one component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from intaglio.contract.tensors import Precision
from intaglio.engines.weights_of_several import WeightsOfSeveral


class Refits:
    """What an engine of a few weights is asked to do."""

    precision: Precision = "fp16"

    def __init__(self, *groups: set[str]) -> None:
        self.groups = [frozenset(group) for group in groups]
        self.given: list[dict[str, Any]] = []

    def refit(self, weights: Mapping[str, Any]) -> None:
        self.given.append(dict(weights))

    def joined(self, sizes: Mapping[str, int]) -> list[frozenset[str]]:
        return [group for group in self.groups if group <= set(sizes)]


def test_weights_of_several_engines_are_refitted_as_one() -> None:
    step, context = Refits({"a.1", "a.2"}), Refits({"b.1", "b.2"})
    both = WeightsOfSeveral({"a": step, "b": context}, lambda name: name.partition(".")[0])
    assert both.precision == "fp16"
    assert both.joined({"a.1": 1, "a.2": 1, "b.1": 1}) == [frozenset({"a.1", "a.2"})]
    values = {name: np.zeros(1) for name in ("a.1", "b.2", "a.3")}
    both.refit(values)
    assert [list(given) for given in (*step.given, *context.given)] == [["a.1", "a.3"], ["b.2"]]
    both.refit({"b.1": np.zeros(1)})
    assert (len(step.given), len(context.given)) == (1, 2)
