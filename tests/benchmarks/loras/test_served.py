"""What clients under load are counted as."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.loras.files import LoraCase
from benchmarks.loras.served import Load
from intaglio.errors import Unavailable


class Scripted:
    """A client whose answers are given."""

    def __init__(self, answers: list[Any]) -> None:
        self._answers = answers

    def generate(self, prompt: str, **parameters: Any) -> Any:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Drawn:
    def __init__(self, value: int, *, swapped: bool) -> None:
        self.pixels = np.full((2, 2, 3), value, np.uint8)
        self.timings = {"request": 1.0} | ({"lora_swap": 0.5} if swapped else {})


def test_failures_swaps_and_images_of_another_set_are_counted() -> None:
    load = Load("nowhere", LoraCase("x.yaml"))
    client: Any = Scripted(
        [Drawn(1, swapped=False), Drawn(2, swapped=True), Unavailable("busy"), Drawn(3, swapped=True)]
    )
    for loras in ((), ("one",), ("one",), ("one",)):
        load._ask(client, loras)
    found = load.result()
    assert (found["images"], found["failed"], found["swaps"], found["sets"]) == (3, 1, 2, 2)
    assert found["unlike_their_first"] == 1
    assert found["errors"] == ["busy"]


@pytest.mark.parametrize(("swaps", "goes_on"), [(0, True), (2, False)])
def test_a_load_goes_on_until_there_were_enough_swaps(swaps: int, goes_on: bool) -> None:
    load = Load("nowhere", LoraCase("x.yaml", load_seconds=60, load_swaps=2))
    assert load._goes_on()
    load._started -= 61
    load.swap_seconds = [0.5] * swaps
    assert load._goes_on() is goes_on
    load._started -= 121
    assert not load._goes_on()
