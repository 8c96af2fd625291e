"""Schedules lie where the papers put them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from intaglio.sampling.scheduler_config import LCM_ORIGINAL_STEPS, SchedulerConfig
from intaglio.sampling.schedules import (
    Schedule,
    ddim_schedule,
    euler_schedule,
    karras_schedule,
    lcm_schedule,
    unipc_schedule,
)

SCHEDULES = (ddim_schedule, euler_schedule, karras_schedule, lcm_schedule, unipc_schedule)


@pytest.mark.parametrize("make", SCHEDULES)
def test_times_and_sigmas_fall(make: Any) -> None:
    schedule: Schedule = make(SchedulerConfig(), 20, 3)
    assert schedule.begin == 3
    assert schedule.timesteps.shape == (20,)
    assert schedule.sigmas.shape == (21,)
    assert (np.diff(schedule.timesteps) < 0).all()
    assert (np.diff(schedule.sigmas) < 0).all()


def test_signal_and_noise_preserve_variance() -> None:
    schedule = euler_schedule(SchedulerConfig(), 20, 0)
    for step in range(21):
        alpha, sigma = schedule.alpha_sigma(step)
        assert alpha**2 + sigma**2 == pytest.approx(1)
    assert schedule.log_snr(0) == pytest.approx(-math.log(schedule.sigmas[0]))
    assert schedule.log_snr(20) == math.inf


def test_only_ddim_ends_at_its_final_alpha() -> None:
    config = SchedulerConfig()
    # SDXL's beta_start is the first training beta: 1 - alpha_0.
    expected = math.sqrt(config.beta_start / (1 - config.beta_start))
    assert ddim_schedule(config, 20, 0).sigmas[-1] == pytest.approx(expected, rel=1e-4)
    assert ddim_schedule(SchedulerConfig(set_alpha_to_one=True, steps_offset=0), 20, 0).sigmas[-1] == 0
    assert all(make(config, 20, 0).sigmas[-1] == 0 for make in SCHEDULES if make is not ddim_schedule)


def test_karras_levels_are_even_in_their_seventh_root() -> None:
    sigmas = karras_schedule(SchedulerConfig(), 9, 0).sigmas[:-1]
    steps = np.diff(sigmas ** (1 / 7))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)


def test_all_lcm_steps_are_those_it_was_distilled_on() -> None:
    times = lcm_schedule(SchedulerConfig(), LCM_ORIGINAL_STEPS, 0).timesteps
    np.testing.assert_array_equal(times, np.arange(999, 0, -20))
