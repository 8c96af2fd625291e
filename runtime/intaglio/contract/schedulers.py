"""What other programs call our schedulers. The client reads these names, and pictures contain them.

diffusers   the scheduler's class
A1111       AUTOMATIC1111's webui and civitai: the sampler's label
ComfyUI     KSampler's `sampler_name`, with its `scheduler` after it where that matters
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from intaglio.contract.models import Scheduler

__all__ = ["SCHEDULERS", "SchedulerNames", "scheduler_from_name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerNames:
    """The names of one scheduler."""

    a1111: str
    """The label that is written into pictures."""
    same: tuple[str, ...]
    """Other names of exactly this solver."""
    near: Mapping[str, str]
    """Names that leave a choice open or mean a sibling, and what is used here."""


SCHEDULERS: Final[Mapping[Scheduler, SchedulerNames]] = {
    "euler": SchedulerNames(a1111="Euler", same=("EulerDiscreteScheduler", "k_euler"), near={}),
    "euler_a": SchedulerNames(
        a1111="Euler a",
        same=("EulerAncestralDiscreteScheduler", "euler_ancestral", "k_euler_a", "k_euler_ancestral"),
        near={},
    ),
    "ddim": SchedulerNames(a1111="DDIM", same=("DDIMScheduler",), near={}),
    "dpmpp_2m_karras": SchedulerNames(
        a1111="DPM++ 2M Karras",
        # The webui's sampler "DPM++ 2M" chooses Karras sigmas by itself.
        same=("DPM++ 2M", "dpmpp_2m karras", "k_dpmpp_2m_ka"),
        near={"DPMSolverMultistepScheduler": "with Karras sigmas", "dpmpp_2m": "with Karras sigmas"},
    ),
    "unipc": SchedulerNames(
        a1111="UniPC",
        same=("UniPCMultistepScheduler", "uni_pc_bh2"),
        near={"uni_pc": "in its variant bh2"},
    ),
    "lcm": SchedulerNames(a1111="LCM", same=("LCMScheduler",), near={}),
}


def scheduler_from_name(name: str) -> tuple[Scheduler, str | None] | None:
    """Our id of the scheduler `name`, in any case, and what differs from what the name says; None where no
    scheduler has that name.
    """
    return _BY_NAME.get(name.strip().casefold())


def _by_name() -> dict[str, tuple[Scheduler, str | None]]:
    found: dict[str, tuple[Scheduler, str | None]] = {}
    for scheduler, names in SCHEDULERS.items():
        for name in (scheduler, names.a1111, *names.same):
            found[name.casefold()] = (scheduler, None)
        for name, difference in names.near.items():
            found[name.casefold()] = (scheduler, difference)
    return found


_BY_NAME: Final = _by_name()
