"""Which ControlNets are open, which one makes room, and what is left after a failure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.contract.sdxl import controlnet_name, controlnet_networks, union_name
from intaglio.errors import EngineMismatch, Unavailable
from intaglio.stages.diffuse.controlnets import ResidentControlNets

POSE, CANNY, DEPTH = (controlnet_name("pose"), controlnet_name("canny"), union_name("depth"))


class Memory:
    """Opens engines that say what happened, at most `places` ControlNets at the same time."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.broken = ""
        """Network that does not open."""
        self.damaged = ""
        """Network whose file is damaged."""
        self.events: list[str] = []
        self.engines: dict[str, Any] = {}
        self.open: set[str] = set()
        self.controlnets = ResidentControlNets(
            self.engines,
            places=places,
            opener=self,
            release=lambda network: self.events.append(f"release {network}"),
        )

    def check(self, name: str) -> None:
        if name == self.damaged:
            raise EngineMismatch(f"{name}: damaged", command="make")

    def load(self, name: str) -> Any:
        if name == self.broken:
            raise Unavailable(f"{name}: no memory")
        self.open.add(name)
        assert len(self.open) <= 2 * self.places
        self.events.append(f"open {name}")
        return Opened(self, name)

    def compare(self) -> None:
        """Both engines of every resident ControlNet are open, and nothing else is."""
        resident = self.controlnets.resident
        expected = {network for control in resident for network in controlnet_networks(control)}
        assert set(self.engines) == self.open == expected


class Opened:
    def __init__(self, memory: Memory, network: str) -> None:
        self.memory = memory
        self.network = network

    def close(self) -> None:
        self.memory.open.remove(self.network)
        self.memory.events.append(f"close {self.network}")


requests = st.lists(st.lists(st.sampled_from("abcde"), max_size=3, unique=True), max_size=20)


@given(places=st.integers(3, 5), asked=requests)
def test_those_used_last_stay(places: int, asked: list[list[str]]) -> None:
    memory = Memory(places)
    used: list[str] = []
    """Every ControlNet that was ever used, the last one at the end."""
    swaps = 0
    for controls in asked:
        open_before = memory.controlnets.resident
        missing = [control for control in controls if control not in open_before]
        assert memory.controlnets.ensure(controls) == bool(missing)
        swaps += bool(missing)
        others = [control for control in used if control not in controls]
        used = [*others, *(control for control in controls if control in open_before), *missing]
        assert list(memory.controlnets.resident) == used[-places:]
        memory.compare()
    assert memory.controlnets.counts.swaps == swaps
    memory.controlnets.close()
    assert memory.open == set()


def test_the_one_used_longest_ago_is_closed_before_another_opens() -> None:
    memory = Memory(2)
    memory.controlnets.ensure([POSE, CANNY])
    assert not memory.controlnets.ensure([POSE]), "it is open"
    memory.events.clear()
    assert memory.controlnets.ensure([DEPTH])
    assert memory.controlnets.resident == (POSE, DEPTH)
    assert memory.events == [
        "release controlnet.canny",
        "close controlnet_context.canny",
        "close controlnet.canny",
        "open controlnet_union.depth",
        "open controlnet_union_context.depth",
    ]
    assert memory.controlnets.counts.last_seconds > 0


@pytest.mark.parametrize("broken", controlnet_networks(DEPTH))
def test_what_cannot_be_opened_leaves_nothing_half_open(broken: str) -> None:
    memory = Memory(2)
    memory.controlnets.ensure([POSE, CANNY])
    memory.broken = broken
    with pytest.raises(Unavailable, match=f"{broken}: no memory"):
        memory.controlnets.ensure([DEPTH])
    assert memory.controlnets.resident == (CANNY,)
    memory.compare()
    assert not memory.controlnets.ensure([CANNY]), "what is resident serves as before"
    memory.broken = ""
    assert memory.controlnets.ensure([DEPTH, CANNY])
    assert set(memory.controlnets.resident) == {CANNY, DEPTH}
    memory.compare()
    assert (memory.controlnets.counts.swaps, memory.controlnets.counts.failures) == (2, 1)


@pytest.mark.parametrize("damaged", controlnet_networks(DEPTH))
def test_nothing_makes_room_for_a_damaged_file(damaged: str) -> None:
    memory = Memory(2)
    memory.controlnets.ensure([POSE, CANNY])
    memory.damaged = damaged
    with pytest.raises(EngineMismatch, match=f"{damaged}: damaged"):
        memory.controlnets.ensure([DEPTH])
    assert memory.controlnets.resident == (POSE, CANNY)
    memory.compare()


def test_of_several_those_before_the_failure_stay() -> None:
    memory = Memory(2)
    memory.broken = DEPTH
    with pytest.raises(Unavailable):
        memory.controlnets.ensure([POSE, DEPTH])
    assert memory.controlnets.resident == (POSE,)
    memory.compare()
