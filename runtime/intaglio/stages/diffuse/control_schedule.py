"""Which ControlNets run in which step, and which residual set each reads and writes; no device takes part.

A ControlNet need not run in every step (`ControlLink.every`). The chain of ControlNets then starts from a
residual set that still holds the sum of its first ones. Those that run least often come first, so the others
can be added to their sum again and again. Set 0 is zeros, and the chain writes sets 1 and 2 in turn. So there
are two such sums: that of all ControlNets, and that of all but the last. Where neither serves, the whole
chain runs. So each ControlNet runs in every step in which it is due, and some in further steps, when one
before it is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from intaglio.stages.diffuse.links import ControlLink

__all__ = ["ZEROS", "ControlRun", "ResidualSums", "StepControls", "step_controls"]

ZEROS: Final = 0
"""The residual set without any control."""
_FIRST_APART: Final = 3
"""The chain has the residual sets before."""


@dataclass(frozen=True, slots=True)
class StepControls:
    """The links of one step, by their places in the request."""

    chain: tuple[int, ...]
    """Those that take part, in the order of the chain."""
    due: frozenset[int]
    """Those whose residuals must be those of this step."""


@dataclass(frozen=True, slots=True)
class ControlRun:
    """One ControlNet of the chain, from one residual set to another."""

    place: int
    source: int
    target: int

    def apart(self) -> ControlRun:
        """The same ControlNet alone, into a residual set that no other place has."""
        return ControlRun(self.place, ZEROS, _FIRST_APART + self.place)


def step_controls(links: Sequence[ControlLink], step: int, steps: int) -> StepControls:
    """The links of `step` of `steps`."""
    active = [place for place, link in enumerate(links) if link.active(step, steps)]
    chain = tuple(sorted(active, key=lambda place: -links[place].every))  # of equal ones, as requested
    return StepControls(chain, frozenset(place for place in chain if links[place].due(step, steps)))


class ResidualSums:
    """Which sum each residual set holds."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[int, ...]] = {ZEROS: ()}
        """Places of the controls whose sum a residual set holds, in the order of the chain."""

    def advance(self, controls: StepControls) -> tuple[list[ControlRun], int]:
        """What must run in the next step, and the residual set that then holds the sum of its chain."""
        self._forget(controls.due)
        current, done = self._longest_held(controls.chain)
        runs = []
        for count in range(done + 1, len(controls.chain) + 1):
            target = 2 if current == 1 else 1
            runs.append(ControlRun(controls.chain[count - 1], current, target))
            self._held[target] = controls.chain[:count]
            current = target
        return runs, current

    def _forget(self, due: frozenset[int]) -> None:
        """Forget the sums in which a control takes part that is `due`."""
        for number, places in list(self._held.items()):
            if not due.isdisjoint(places):
                del self._held[number]

    def _longest_held(self, chain: tuple[int, ...]) -> tuple[int, int]:
        """The residual set that holds the sum of most of the first controls of `chain`, and their number."""
        number, places = max(
            ((number, places) for number, places in self._held.items() if chain[: len(places)] == places),
            key=lambda held: len(held[1]),
        )
        return number, len(places)
