"""Names of other programs lead to one scheduler each."""

from __future__ import annotations

from typing import get_args

import pytest

from intaglio.contract.models import Scheduler
from intaglio.contract.schedulers import SCHEDULERS, scheduler_from_name

from ...parity import SDXL_SCHEDULER, scheduler_for


def test_every_scheduler_has_names_and_no_name_means_two() -> None:
    assert set(SCHEDULERS) == set(get_args(Scheduler))
    names = [
        name.casefold()
        for scheduler, one in SCHEDULERS.items()
        for name in (scheduler, one.a1111, *one.same, *one.near)
    ]
    assert len(set(names)) == len(names) - sum(one.a1111.casefold() == id_ for id_, one in SCHEDULERS.items())


def test_the_diffusers_classes_are_those_of_the_parity_tests() -> None:
    for scheduler in SCHEDULERS:
        found = scheduler_from_name(type(scheduler_for(scheduler, SDXL_SCHEDULER)).__name__)
        assert found is not None
        assert found[0] == scheduler


@pytest.mark.parametrize(
    ("name", "scheduler", "difference"),
    [
        ("euler a", "euler_a", None),
        ("EulerAncestralDiscreteScheduler", "euler_a", None),
        ("DPM++ 2M Karras", "dpmpp_2m_karras", None),
        ("dpmpp_2m", "dpmpp_2m_karras", "with Karras sigmas"),
        ("uni_pc_bh2", "unipc", None),
    ],
)
def test_names(name: str, scheduler: str, difference: str | None) -> None:
    assert scheduler_from_name(name) == (scheduler, difference)
    assert scheduler_from_name("heun") is None
