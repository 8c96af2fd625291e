"""Names of other programs lead to one scheduler each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from intaglio.contract.models import Schedule, Scheduler
from intaglio.contract.schedulers import (
    SCHEDULERS,
    SCHEDULES,
    NamedScheduler,
    schedule_from_name,
    scheduler_from_name,
)

from ...parity import SDXL_SCHEDULER, scheduler_for


def test_every_scheduler_has_names_and_no_name_means_two() -> None:
    assert set(SCHEDULERS) == set(get_args(Scheduler))
    meanings: dict[str, set[str]] = {}
    for scheduler, one in SCHEDULERS.items():
        for name in (scheduler, one.a1111, *one.same, *one.near, *one.placed):
            meanings.setdefault(name.casefold(), set()).add(scheduler)
    assert all(len(found) == 1 for found in meanings.values())


def test_every_schedule_has_a_label_that_means_it() -> None:
    assert set(SCHEDULES) == set(get_args(Schedule))
    for schedule, names in SCHEDULES.items():
        for name in (schedule, names.a1111, *names.same, *names.near):
            found = schedule_from_name(name)
            assert found is not None
            assert found[0] == schedule
    assert schedule_from_name("polyexponential") is None


def test_the_diffusers_classes_are_those_of_the_parity_tests() -> None:
    several = {"dpmpp_2m_karras": "dpmpp_2m", "dpmpp_2m_sde": "dpmpp_2m"}
    for scheduler in SCHEDULERS:
        found = scheduler_from_name(type(scheduler_for(scheduler, SDXL_SCHEDULER)).__name__)
        assert found == NamedScheduler(several.get(scheduler, scheduler))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("euler a", ("euler_a",)),
        ("EulerAncestralDiscreteScheduler", ("euler_a",)),
        ("DPM++ 2M Karras", ("dpmpp_2m_karras",)),
        ("dpmpp_2m", ("dpmpp_2m",)),
        ("DPM++ 2M", ("dpmpp_2m", "karras")),
        ("DPM++ 2M SDE", ("dpmpp_2m_sde", "exponential")),
        ("DPM++ 2M SDE Karras", ("dpmpp_2m_sde", "karras")),
        ("dpmpp_2m_sde karras", ("dpmpp_2m_sde", "karras")),
        ("uni_pc_bh2", ("unipc",)),
        ("uni_pc", ("unipc", None, "in its variant bh2")),
        ("euler sgm_uniform", ("euler", "trailing", "at the nearest training times")),
        ("euler SGM Uniform", ("euler", "trailing", "at the nearest training times")),
        ("euler normal", ("euler", "linspace")),
        ("heun align_your_steps", ("heun", "ays")),
        (
            "Euler a Karras",
            (
                "euler_a",
                "karras",
                "between the first and the last noise level of the model's own spacing",
            ),
        ),
    ],
)
def test_names(name: str, meant: tuple[Any, ...]) -> None:
    found = scheduler_from_name(name)
    assert found is not None
    assert replace(found, is_default=False) == NamedScheduler(*meant)


@pytest.mark.parametrize(("name", "is_default"), [("DPM++ 2M", True), ("DPM++ 2M SDE Karras", False)])
def test_the_schedule_of_a_bare_sampler_is_only_a_default(name: str, is_default: bool) -> None:
    found = scheduler_from_name(name)
    assert found is not None
    assert found.is_default is is_default


@pytest.mark.parametrize(
    "name", ["plms", "dpmpp_2m normal", "dpmpp_2m_karras beta", "karras", "unipc ddim_uniform"]
)
def test_a_name_of_something_else_is_none(name: str) -> None:
    assert scheduler_from_name(name) is None
