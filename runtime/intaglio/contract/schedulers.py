"""What other programs call our schedulers. The client reads these names, and pictures contain them.

diffusers   the scheduler's class
A1111       AUTOMATIC1111's webui and civitai: the sampler's label
ComfyUI     KSampler's `sampler_name`, with its `scheduler` after it where that matters

A1111 and ComfyUI name a solver and where its steps lie ("DPM++ 2M SDE Karras"); here `scheduler` and
`schedule` are two inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from intaglio.contract.models import Schedule, Scheduler

__all__ = [
    "OWN_SCHEDULE",
    "SCHEDULERS",
    "SCHEDULES",
    "NamedScheduler",
    "ScheduleNames",
    "SchedulerNames",
    "schedule_from_name",
    "scheduler_from_name",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerNames:
    """The names of one scheduler."""

    a1111: str
    """The label that is written into pictures."""
    same: tuple[str, ...] = ()
    """Other names of exactly this solver."""
    near: Mapping[str, str] = field(default_factory=dict)
    """Names that leave a choice open or mean a sibling, and what is used here."""
    placed: Mapping[str, Schedule] = field(default_factory=dict)
    """Names of this solver that mean a schedule where none is stated beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleNames:
    """The names of one schedule."""

    a1111: str
    """The label that is written into pictures."""
    near: Mapping[str, str] = field(default_factory=dict)
    """Other names, and what differs."""
    same: tuple[str, ...] = ()
    """Other names of exactly this schedule."""


@dataclass(frozen=True, slots=True)
class NamedScheduler:
    """What a name means here."""

    scheduler: Scheduler
    schedule: Schedule | None = None
    """None where the name leaves it open."""
    difference: str | None = None
    """What differs from what the name says."""
    is_default: bool = False
    """Whether a schedule that is stated beside the name counts instead of `schedule`."""


SCHEDULERS: Final[Mapping[Scheduler, SchedulerNames]] = {
    "euler": SchedulerNames(a1111="Euler", same=("EulerDiscreteScheduler", "k_euler")),
    "euler_a": SchedulerNames(
        a1111="Euler a",
        same=("EulerAncestralDiscreteScheduler", "euler_ancestral", "k_euler_a", "k_euler_ancestral"),
    ),
    "heun": SchedulerNames(a1111="Heun", same=("HeunDiscreteScheduler", "k_heun")),
    "ddim": SchedulerNames(a1111="DDIM", same=("DDIMScheduler",)),
    "dpmpp_2m": SchedulerNames(
        a1111="DPM++ 2M",
        same=("DPMSolverMultistepScheduler",),
        # The webui's sampler chooses Karras sigmas by itself.
        placed={"DPM++ 2M": "karras"},
    ),
    "dpmpp_2m_karras": SchedulerNames(a1111="DPM++ 2M Karras", same=("dpmpp_2m karras", "k_dpmpp_2m_ka")),
    "dpmpp_2m_sde": SchedulerNames(
        a1111="DPM++ 2M SDE",
        near={"dpmpp_2m_sde_gpu": "with noise drawn on the CPU"},
        placed={"DPM++ 2M SDE": "exponential", "k_dpmpp_2m_sde": "exponential"},
    ),
    "dpmpp_sde": SchedulerNames(
        a1111="DPM++ SDE",
        same=("DPMSolverSDEScheduler",),
        near={"dpmpp_sde_gpu": "with noise drawn on the CPU"},
        placed={"DPM++ SDE": "karras", "k_dpmpp_sde": "karras"},
    ),
    "unipc": SchedulerNames(
        a1111="UniPC",
        same=("UniPCMultistepScheduler", "uni_pc_bh2"),
        near={"uni_pc": "in its variant bh2"},
    ),
    "lcm": SchedulerNames(a1111="LCM", same=("LCMScheduler",)),
    "tcd": SchedulerNames(a1111="TCD", same=("TCDScheduler",)),
}
_NEAREST: Final = "at the nearest training times"
SCHEDULES: Final[Mapping[Schedule, ScheduleNames]] = {
    "leading": ScheduleNames(
        a1111="DDIM", near={"ddim_uniform": "without the extra step where the steps do not divide 1000"}
    ),
    "trailing": ScheduleNames(a1111="SGM Uniform", near={"sgm_uniform": _NEAREST, "simple": _NEAREST}),
    "linspace": ScheduleNames(a1111="Uniform", same=("normal",)),
    "karras": ScheduleNames(a1111="Karras"),
    "exponential": ScheduleNames(a1111="Exponential"),
    "beta": ScheduleNames(a1111="Beta", near={"beta": "over noise levels, as in diffusers, not over times"}),
    "ays": ScheduleNames(a1111="Align Your Steps", same=("align_your_steps",)),
}
OWN_SCHEDULE: Final[Schedule] = "leading"
"""The schedule in the scheduler config of SDXL and nearly all of its checkpoints. No other program has a name
for "the model's own", so this name is written into pictures.
"""
_EULERS: Final = ("euler", "euler_a", "heun", "dpmpp_sde")
_OWN_RANGE: Final = "between the first and the last noise level of the model's own spacing"


def scheduler_from_name(name: str) -> NamedScheduler | None:
    """What `name` means here, in any case; None where no scheduler has that name.

    The name may end in that of a schedule: "DPM++ 2M SDE Karras", "euler sgm_uniform".
    """
    text = name.strip().casefold()
    if text in _BY_NAME:
        return _BY_NAME[text]
    for label, (schedule, difference) in _SCHEDULES_BY_NAME.items():
        solver = _SOLVERS_BY_NAME.get(text.removesuffix(f" {label}"))
        if solver is not None and solver != "dpmpp_2m_karras":
            return _placed(solver, schedule, difference)
    return None


def _placed(solver: Scheduler, schedule: Schedule, difference: str | None) -> NamedScheduler | None:
    """`solver` with `schedule`; None where the schedule of that name is another one here."""
    if schedule in ("leading", "linspace") and solver not in _EULERS:
        return None  # DPM++ 2M and UniPC leave the last time out, as in diffusers
    if schedule in ("karras", "exponential") and solver in _EULERS:
        difference = _OWN_RANGE
    return NamedScheduler(solver, schedule, difference)


def schedule_from_name(name: str) -> tuple[Schedule, str | None] | None:
    """Our id of the schedule `name`, in any case, and what differs; None where no schedule has that name."""
    text = name.strip().casefold()
    for schedule in SCHEDULES:
        if text == schedule:
            return schedule, None
    return _SCHEDULES_BY_NAME.get(text)


def _by_name() -> dict[str, NamedScheduler]:
    found: dict[str, NamedScheduler] = {}
    for scheduler, names in SCHEDULERS.items():
        for name in (scheduler, names.a1111, *names.same):
            found[name.casefold()] = NamedScheduler(scheduler)
        for name, difference in names.near.items():
            found[name.casefold()] = NamedScheduler(scheduler, None, difference)
        for name, schedule in names.placed.items():
            difference_here = _OWN_RANGE if scheduler in _EULERS else None
            found[name.casefold()] = NamedScheduler(scheduler, schedule, difference_here, is_default=True)
    return found


def _schedules_by_name() -> dict[str, tuple[Schedule, str | None]]:
    found: dict[str, tuple[Schedule, str | None]] = {}
    for schedule, names in SCHEDULES.items():
        for name in (schedule, names.a1111, *names.same):
            found[name.casefold()] = (schedule, None)
        for name, difference in names.near.items():
            found[name.casefold()] = (schedule, difference)
    # A1111's labels of what ComfyUI calls sgm_uniform and ddim_uniform.
    found["sgm uniform"] = found["sgm_uniform"]
    found["ddim"] = found["ddim_uniform"]
    return found


_BY_NAME: Final = _by_name()
_SOLVERS_BY_NAME: Final = {name: named.scheduler for name, named in _BY_NAME.items()}
_SCHEDULES_BY_NAME: Final = _schedules_by_name()
