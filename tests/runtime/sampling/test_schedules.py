"""Schedules lie where the papers put them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from intaglio.errors import InvalidRequest
from intaglio.sampling.scheduler_config import LCM_ORIGINAL_STEPS, SchedulerConfig
from intaglio.sampling.schedules import (
    Grid,
    Schedule,
    noise_schedule,
    with_midpoints,
    with_second_stages,
)
from intaglio.sampling.trajectory import Trajectory

GRIDS: tuple[Grid, ...] = ("fractional", "open", "whole", "distilled")


def placed(grid: Grid, steps: int = 20, config: SchedulerConfig | None = None, **values: object) -> Schedule:
    asked = Trajectory(scheduler="any", steps=steps, **values)  # type: ignore[arg-type]
    return noise_schedule(config or SchedulerConfig(), asked, grid)


@pytest.mark.parametrize("grid", GRIDS)
def test_times_and_sigmas_fall(grid: Grid) -> None:
    for schedule in (None, "leading", "trailing", "linspace", "ays"):
        found = placed(grid, schedule=schedule)
        assert found.timesteps.shape == found.sigmas.shape == found.goals.shape == (20,)
        assert (np.diff(found.timesteps) < 0).all()
        assert (np.diff(found.sigmas) < 0).all()
        # DDIM's last goal is the level of the first training time, where linspace ends.
        assert (found.goals[:-1] < found.sigmas[:-1]).all()


@pytest.mark.parametrize("grid", ["fractional", "open"])
@pytest.mark.parametrize("schedule", ["karras", "exponential", "beta"])
def test_sigmas_that_are_placed_fall_over_the_grids_range(grid: Grid, schedule: str) -> None:
    found = placed(grid, schedule=schedule)
    assert (np.diff(found.timesteps) <= 0).all()
    assert (np.diff(found.sigmas) < 0).all()
    spaced = placed(grid)
    ends = spaced.sigmas[[0, -1]] if grid == "fractional" else found.training[[-1, 0]]
    np.testing.assert_allclose(found.sigmas[[0, -1]], ends, rtol=1e-6)


def test_only_ddim_ends_at_its_final_alpha() -> None:
    config = SchedulerConfig()
    # SDXL's beta_start is the first training beta: 1 - alpha_0.
    expected = math.sqrt(config.beta_start / (1 - config.beta_start))
    assert placed("whole").goals[-1] == pytest.approx(expected, rel=1e-4)
    assert placed("whole", 4, timesteps=(900, 600, 300, 1)).goals[-1] == pytest.approx(expected, rel=1e-4)
    to_zero = SchedulerConfig(set_alpha_to_one=True, steps_offset=0)
    assert placed("whole", config=to_zero).goals[-1] == 0
    assert all(placed(grid).goals[-1] == 0 for grid in GRIDS if grid != "whole")


def test_ddims_stride_is_not_always_the_next_time() -> None:
    """1000 // 30 is 33, and the times of a trailing schedule lie 33 or 34 apart."""
    found = placed("whole", 30, schedule="trailing")
    assert not np.allclose(found.goals[:-1], found.sigmas[1:], rtol=1e-6)
    even = placed("whole", 20, schedule="trailing")
    np.testing.assert_array_equal(even.goals[:-1], even.sigmas[1:])


def test_all_lcm_steps_are_those_it_was_distilled_on() -> None:
    times = placed("distilled", LCM_ORIGINAL_STEPS).timesteps
    np.testing.assert_array_equal(times, np.arange(999, 0, -20))


def test_the_second_call_happens_where_the_step_leads() -> None:
    base = placed("fractional", 3)
    calls = with_second_stages(base)
    np.testing.assert_array_equal(calls.timesteps, base.timesteps[[0, 1, 1, 2, 2]])
    np.testing.assert_array_equal(calls.sigmas, base.sigmas[[0, 1, 1, 2, 2]])
    np.testing.assert_array_equal(calls.goals, [*base.sigmas[[1, 1, 2, 2]], 0])


def test_the_middle_of_a_step_is_the_middle_of_its_log_snr() -> None:
    base = placed("fractional", 3)
    calls = with_midpoints(base)
    assert len(calls) == 5
    np.testing.assert_array_equal(calls.sigmas[::2], base.sigmas)
    for step in (0, 1):
        middle = calls.level(2 * step + 1)
        mean = (base.level(step).log_snr + base.goal(step).log_snr) / 2
        assert middle.log_snr == pytest.approx(mean)
        assert calls.goals[2 * step] == middle.ratio
        assert calls.goals[2 * step + 1] == base.goals[step]
        assert calls.timesteps[2 * step] > calls.timesteps[2 * step + 1] > calls.timesteps[2 * step + 2]


def test_custom_values_are_taken_as_they_are() -> None:
    times = placed("open", 2, timesteps=(800, 300))
    np.testing.assert_array_equal(times.timesteps, [800, 300])
    levels = placed("fractional", 2, sigmas=(9.0, 2.0, 0.5))
    np.testing.assert_array_equal(levels.sigmas, [9, 2])
    np.testing.assert_array_equal(levels.goals, [2, 0.5])
    with pytest.raises(InvalidRequest, match="timesteps: 1000; allowed: 999 to 0"):
        placed("open", 1, timesteps=(1000,))


def test_sparse_steps_are_those_kept() -> None:
    every = placed("fractional", 10)
    found = placed("fractional", 10, sparse_begin=0.5, sparse_every=3)
    np.testing.assert_array_equal(found.timesteps, every.timesteps[[0, 1, 2, 3, 4, 5, 8]])
    np.testing.assert_array_equal(found.goals, [*found.sigmas[1:], 0])
