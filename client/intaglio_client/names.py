"""Names that people know from diffusers, A1111 and ComfyUI, beside our own. Only the client takes them.

    steps            num_inference_steps                       diffusers
    num_images       num_images_per_prompt, n, batch_size      diffusers; OpenAI; A1111
    guidance_scale   cfg_scale, cfg                            A1111; ComfyUI
    scheduler        sampler_name, sampler                     A1111 and ComfyUI
    of each control
      weight         controlnet_conditioning_scale             diffusers
      begin          control_guidance_start                    diffusers
      end            control_guidance_end                      diffusers

A scheduler and a schedule have the names of `intaglio.contract.schedulers`. The seed -1 is A1111's for a
random one.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Final, TypedDict

from intaglio.contract.schedulers import NamedScheduler, schedule_from_name, scheduler_from_name
from intaglio.errors import InvalidRequest
from intaglio_client.controls import Control

__all__ = [
    "ALIASES",
    "CONTROL_ALIASES",
    "Aliases",
    "own_names",
    "with_control_aliases",
    "without_values",
]

ALIASES: Final[Mapping[str, str]] = {
    "num_inference_steps": "steps",
    "num_images_per_prompt": "num_images",
    "n": "num_images",
    "batch_size": "num_images",
    "cfg_scale": "guidance_scale",
    "cfg": "guidance_scale",
    "sampler_name": "scheduler",
    "sampler": "scheduler",
}
CONTROL_ALIASES: Final[Mapping[str, str]] = {
    "controlnet_conditioning_scale": "weight",
    "control_guidance_start": "begin",
    "control_guidance_end": "end",
}
"""A number holds for every control; a list has one number for each."""
_RANDOM_SEED: Final = -1
_AUTOMATIC: Final = "automatic"
"""A1111's name for no stated schedule."""
_PLACES: Final = ("schedule", "timesteps", "sigmas")
"""Inputs that say where the steps lie."""
_log = logging.getLogger(__name__)


class Aliases(TypedDict, total=False):
    """Keyword arguments of `Client.generate` under other programs' names."""

    num_inference_steps: int | None
    num_images_per_prompt: int | None
    n: int | None
    batch_size: int | None
    cfg_scale: float | None
    cfg: float | None
    sampler_name: str | None
    sampler: str | None
    controlnet_conditioning_scale: float | Sequence[float] | None
    control_guidance_start: float | Sequence[float] | None
    control_guidance_end: float | Sequence[float] | None


def own_names(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` under our names, and without what is None: aliases, schedulers' names and the seed -1.

    Raises:
        InvalidRequest: two names of one parameter have different values, or a scheduler's name means another
            schedule than the one that is given.
    """
    found: dict[str, Any] = {}
    placed: NamedScheduler | None = None
    names: dict[str, str] = {}
    for name, value in given.items():
        if value is None:
            continue
        own = ALIASES.get(name, name)
        meant = value
        if own == "scheduler" and isinstance(value, str):
            placed = scheduler_from_name(value)
            meant = value if placed is None else placed.scheduler
        elif own == "schedule":
            if isinstance(value, str) and value.strip().casefold() == _AUTOMATIC:
                continue
            meant = _own_schedule(value)
        if own in found and found[own] != meant:
            other = names[own]
            problem = f"{value!r}, but {other} is {given[other]!r}"
            raise InvalidRequest(name, problem, allowed=f"the same value, or only one of {name} and {other}")
        found[own] = meant
        names[own] = name
    if placed is not None:
        _place(found, placed, name=str(given[names["scheduler"]]))
    seed = found.get("seed")
    if isinstance(seed, Integral) and seed == _RANDOM_SEED:
        del found["seed"]
    return found


def _own_schedule(value: Any) -> Any:
    """Our id of a schedule's name; a value that is none is left for the table to refuse."""
    known = schedule_from_name(value) if isinstance(value, str) else None
    if known is None:
        return value
    schedule, difference = known
    if difference is not None:
        _log.warning("schedule %s is %s here, %s", value, schedule, difference)
    return schedule


def _place(found: dict[str, Any], known: NamedScheduler, *, name: str) -> None:
    """Set the schedule that the scheduler's name means, and log what differs from what the name says."""
    stated = [field for field in _PLACES if field in found]
    if known.is_default and stated:
        return
    if known.difference is not None:
        _log.warning("scheduler %s is %s here, %s", name, known.scheduler, known.difference)
    if known.schedule is None:
        return
    for field in stated:
        if found[field] != known.schedule:
            problem = f"{found[field]!r}, but scheduler {name!r} means the schedule {known.schedule}"
            raise InvalidRequest(field, problem, allowed=f"absent, or scheduler {known.scheduler} beside it")
    found["schedule"] = known.schedule


def with_control_aliases(controls: Sequence[Control], given: Mapping[str, Any]) -> tuple[Control, ...]:
    """`controls` with the values that `given` has for them under diffusers' names.

    Raises:
        InvalidRequest: there are no controls, or not as many as values, or one has another value itself.
    """
    changed = tuple(controls)
    for alias, field in CONTROL_ALIASES.items():
        if given.get(alias) is not None:
            changed = _with_values(changed, alias, field, given[alias])
    return changed


def _with_values(controls: tuple[Control, ...], alias: str, field: str, value: Any) -> tuple[Control, ...]:
    if not controls:
        raise InvalidRequest(alias, "there are no controls", allowed="absent, or controls or pose beside it")
    values = list(value) if isinstance(value, list | tuple) else [value] * len(controls)
    if len(values) != len(controls):
        problem = f"{len(values)} values for {len(controls)} controls"
        raise InvalidRequest(alias, problem, allowed="one number, or one for each control, pose first")
    changed = []
    for index, (control, one) in enumerate(zip(controls, values, strict=True)):
        own = getattr(control, field)
        if own not in (_DEFAULTS[field], one):
            problem = f"{one!r}, but controls[{index}].{field} is {own!r}"
            raise InvalidRequest(alias, problem, allowed="the same value, or only one of both")
        changed.append(dataclasses.replace(control, **{field: one}))
    return tuple(changed)


def without_values(controls: Sequence[Control], given: Mapping[str, Any]) -> list[Control]:
    """`controls` without their own values for what `given` states under diffusers' names."""
    replaced = {field: _DEFAULTS[field] for alias, field in CONTROL_ALIASES.items() if alias in given}
    return [dataclasses.replace(control, **replaced) for control in controls]


_DEFAULTS: Final[dict[str, Any]] = {field.name: field.default for field in dataclasses.fields(Control)}
