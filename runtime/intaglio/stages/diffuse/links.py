"""The links of a chain of ControlNets: which controls one pass of a network computes, and in which steps.

A ControlNet of one type computes one control. A ControlNet-Union computes all of its controls together, as
diffusers' `StableDiffusionXLControlNetUnionPipeline` does:

* One control: `weight` scales the residuals, and the union runs inside the control's window.
* Several controls: `weight` scales each control's embedding, and no residual. Outside its window a control
  has the weight 0, but its type still counts. So the union runs in every step.

A control of weight 0 takes no part at all. (diffusers lets the type of such a control count, too.)

Axes: n steps of the whole trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.sdxl import UNION_TYPES
from intaglio.request.limits import inside_window

__all__ = ["ControlLink", "ControlPlan", "chain_links"]


@dataclass(frozen=True, slots=True)
class ControlPlan:
    """One control of a request: its network, its map, its weight, its part of the trajectory."""

    network: str
    map: NDArray[np.uint8]
    """[H, W, RGB]."""
    weight: float
    begin: float
    end: float
    every: int
    """2: it runs in every second step of its window."""
    mode: int | None = None
    """Index of its type in a ControlNet-Union; None for a ControlNet of one type."""

    def active(self, step: int, steps: int) -> bool:
        """Whether it takes part in `step` of `steps` (diffusers' `control_guidance_start` and `_end`)."""
        return self.weight != 0 and inside_window((self.begin, self.end), step, steps)


@dataclass(frozen=True, slots=True)
class ControlLink:
    """What one pass of a ControlNet computes."""

    network: str
    plans: tuple[ControlPlan, ...]
    """One, or several controls of a union."""

    @property
    def several(self) -> bool:
        """Whether a union computes several controls together."""
        return len(self.plans) > 1

    @property
    def every(self) -> int:
        """2: it runs in every second step. The control that asks for most steps decides."""
        return min(plan.every for plan in self.plans)

    @property
    def scale(self) -> float:
        """Factor on the residuals."""
        return 1.0 if self.several else self.plans[0].weight

    def embedding_weight(self, plan: ControlPlan) -> float:
        """Factor on the embedding of `plan`, which is one of `plans`."""
        return plan.weight if self.several else 1.0

    @property
    def types(self) -> NDArray[np.float32]:
        """[32]: 1 at the index of every type of a union that takes part."""
        types = np.zeros(UNION_TYPES, np.float32)
        types[[plan.mode for plan in self.plans if plan.mode is not None]] = 1
        return types

    def active(self, step: int, steps: int) -> bool:
        """Whether it takes part in `step` of `steps`."""
        return self.several or self.plans[0].active(step, steps)

    def present(self, step: int, steps: int) -> tuple[int, ...]:
        """Indices of the plans whose embeddings take part in `step`."""
        return tuple(index for index, plan in enumerate(self.plans) if plan.active(step, steps))

    def due(self, step: int, steps: int) -> bool:
        """Whether its residuals must be those of `step`, in which it is active.

        They must in the first step of its window, in every `every`-th from there, and where other controls
        are present than in the step before.
        """
        if self.every == 1:
            return True
        first = next(other for other in range(steps) if self.active(other, steps))
        if (step - first) % self.every == 0:
            return True
        return self.present(step, steps) != self.present(step - 1, steps)


def chain_links(plans: Sequence[ControlPlan]) -> tuple[ControlLink, ...]:
    """The links that compute `plans`, in the order of their first controls."""
    groups: dict[object, list[ControlPlan]] = {}
    for place, plan in enumerate(plans):
        if plan.weight != 0:
            own = plan.network if plan.mode is not None else place
            groups.setdefault(own, []).append(plan)
    return tuple(ControlLink(group[0].network, tuple(group)) for group in groups.values())
