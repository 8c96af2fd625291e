"""Where the steps of a trajectory lie: times and noise levels, as diffusers 0.36's schedulers place them.

Axes: `n` solver steps, `N` training times. diffusers' classes differ in how they divide the training times:

    fractional   Euler and its kin: n times, not rounded; noise levels reach from the first to the last
    open         DPM++ 2M and UniPC: n of n + 1 divisions; noise levels span the whole training
    whole        DDIM: n whole times
    distilled    LCM and TCD: n of the 50 times of their distillation
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import InvalidRequest
from intaglio.sampling.noise_levels import Level, times_of_sigmas, training_sigmas
from intaglio.sampling.scheduler_config import LCM_ORIGINAL_STEPS, SchedulerConfig
from intaglio.sampling.spacings import (
    ays_times,
    beta_sigmas,
    distilled_times,
    exponential_sigmas,
    karras_sigmas,
)
from intaglio.sampling.trajectory import SIGMA_SPACINGS, Trajectory

__all__ = ["Grid", "Schedule", "noise_schedule", "spacing_of", "with_midpoints", "with_second_stages"]

Grid = Literal["fractional", "open", "whole", "distilled"]
Floats = NDArray[np.float64]
_AYS_TRAINING_TIMES: Final = 1000
_SLACK: Final = 1.01
"""A custom sigma may exceed the training's largest by so much: published tables are rounded."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Where a solver goes: model times and noise levels, highest first.

    `timesteps` and `sigmas` are [n], the time and level at each model call. `goals` is [n], the level that
    each step leads to; after the last it is 0, DDIM's final level or the end of custom sigmas. `training` is
    [N], the levels of all training times. `begin` is the first step taken.
    """

    timesteps: Floats
    sigmas: Floats
    goals: Floats
    training: NDArray[np.float32]
    begin: int = 0

    def __len__(self) -> int:
        return len(self.timesteps)

    def level(self, i: int) -> Level:
        """The noise level of x in step i."""
        return Level(float(self.sigmas[i]))

    def goal(self, i: int) -> Level:
        """The noise level that step i leads to."""
        return Level(float(self.goals[i]))

    def trained(self, time: int) -> Level:
        """The noise level of a training time."""
        return Level(float(self.training[time]))


def spacing_of(config: SchedulerConfig, trajectory: Trajectory, grid: Grid) -> str:
    """The schedule that `trajectory` asks for, or else the one that diffusers' class reads in the config."""
    if trajectory.schedule is not None:
        return trajectory.schedule
    if grid == "distilled":
        return "distilled"
    if grid == "whole" or config.sigma_spacing is None:
        return config.timestep_spacing
    return config.sigma_spacing


def noise_schedule(config: SchedulerConfig, trajectory: Trajectory, grid: Grid) -> Schedule:
    """The schedule of `trajectory` for a solver that divides the training times as `grid` says.

    Raises:
        InvalidRequest: more steps than the schedule has places, or custom values outside the training's.
    """
    training = training_sigmas(config, floor=grid in ("fractional", "open"))
    times, sigmas, end = _places(config, trajectory, grid, training)
    goals = np.append(sigmas[1:], end)
    if grid == "whole":
        goals[-1] = 0.0 if config.set_alpha_to_one else training[0]
        if trajectory.timesteps is None and trajectory.schedule != "ays":
            goals = _one_stride_on(config, times, training)
    found = Schedule(times, _rounded(sigmas), _rounded(goals), training)
    return found if trajectory.sparse_every is None else _taken(found, trajectory.kept)


def _places(
    config: SchedulerConfig, trajectory: Trajectory, grid: Grid, training: NDArray[np.float32]
) -> tuple[Floats, Floats, float]:
    """Times and sigmas of the steps, and the sigma after the last."""
    if trajectory.sigmas is not None:
        custom = _custom_sigmas(trajectory.sigmas, training)
        return times_of_sigmas(custom[:-1], training), custom[:-1], float(custom[-1])
    spacing = spacing_of(config, trajectory, grid)
    if trajectory.timesteps is not None:
        times = _custom_times(trajectory.timesteps, config)
    elif spacing in SIGMA_SPACINGS:
        times, sigmas = _spaced_sigmas(config, spacing, trajectory.steps, grid, training)
        return times, sigmas, 0.0
    else:
        times = _spaced_times(config, spacing, trajectory.steps, grid)
    return times, _at_times(times, training), 0.0


def with_second_stages(schedule: Schedule) -> Schedule:
    """Model calls of a solver that calls the model again at the end of each step but the last (Heun).

    Calls 2 k and 2 k + 1 are those of step k. The second happens at the level that the step leads to.
    """
    repeated = np.repeat(np.arange(len(schedule)), 2)
    later = repeated[1:]
    # Both calls of a step lead to the same level.
    return Schedule(
        schedule.timesteps[later],
        schedule.sigmas[later],
        schedule.goals[repeated[:-1]],
        schedule.training,
        2 * schedule.begin,
    )


def with_midpoints(schedule: Schedule) -> Schedule:
    """Model calls of a solver that calls the model again halfway through each step but the last (DPM++ SDE).

    Halfway in log-SNR. Call 2 k leads to the middle of step k, call 2 k + 1 happens there and leads to its
    end.
    """
    middles = np.sqrt(schedule.sigmas[:-1] * schedule.goals[:-1])
    middle_times = times_of_sigmas(middles, schedule.training)
    return Schedule(
        _interleaved(schedule.timesteps, middle_times),
        _interleaved(schedule.sigmas, middles),
        np.append(_interleaved(middles, schedule.goals[:-1]), schedule.goals[-1]),
        schedule.training,
        2 * schedule.begin,
    )


def _interleaved(first: Floats, second: Floats) -> Floats:
    """first[0], second[0], first[1], ...; `first` may be one longer."""
    both = np.empty(len(first) + len(second))
    both[::2] = first
    both[1::2] = second
    return both


def _rounded(sigmas: Floats) -> Floats:
    """diffusers keeps levels in float32."""
    return sigmas.astype(np.float32).astype(np.float64)


def _taken(schedule: Schedule, kept: list[int]) -> Schedule:
    """The steps `kept`; each leads to the next one of them."""
    sigmas = schedule.sigmas[kept]
    goals = np.append(sigmas[1:], schedule.goals[-1])
    return replace(schedule, timesteps=schedule.timesteps[kept], sigmas=sigmas, goals=goals)


# --- times ---


def _spaced_times(config: SchedulerConfig, spacing: str, steps: int, grid: Grid) -> Floats:
    """[steps] training times, latest first. Lin et al., arXiv 2305.08891, table 2."""
    total = config.num_train_timesteps
    if spacing == "distilled":
        return distilled_times(steps, original=LCM_ORIGINAL_STEPS, training_times=total)
    if spacing == "ays":
        if total != _AYS_TRAINING_TIMES:
            problem = f"ays is a table of {_AYS_TRAINING_TIMES} training times, this model has {total}"
            raise InvalidRequest("schedule", problem, allowed="another schedule")
        times = ays_times(steps, training_sigmas(replace(config, rescale_betas_zero_snr=False)))
        return times if grid in ("fractional", "open") else _whole(times)
    if spacing == "trailing":
        # As diffusers adds it up: another order of the sums rounds halves to other times, at 48 steps first.
        trailing: Floats = np.arange(total, 0, -total / steps)[:steps].round() - 1
        return trailing
    divisions = steps + 1 if grid == "open" else steps
    if spacing == "linspace":
        times = np.linspace(0, total - 1, divisions)[::-1][:steps]
        return times.copy() if grid == "fractional" else times.round()
    index = np.arange(divisions - 1, divisions - 1 - steps, -1)
    leading = index * (total // divisions) + config.steps_offset
    return leading.astype(np.float64)


def _whole(times: Floats) -> Floats:
    """The nearest training times.

    Raises:
        InvalidRequest: two steps share one.
    """
    rounded = times.round()
    if (np.diff(rounded) >= 0).any():
        problem = f"{len(times)} with schedule ays, and two would share a training time"
        raise InvalidRequest("steps", problem, allowed="fewer steps, or another schedule")
    return rounded


def _custom_times(timesteps: tuple[float, ...], config: SchedulerConfig) -> Floats:
    last = config.num_train_timesteps - 1
    if timesteps[0] > last:
        raise InvalidRequest("timesteps", f"{timesteps[0]:g}", allowed=f"{last} to 0")
    return np.array(timesteps, np.float64)


def _at_times(times: Floats, training: NDArray[np.float32]) -> Floats:
    """Levels at `times`, linear between training times."""
    low = np.floor(times).astype(np.int64)
    between = times - low
    levels = training.astype(np.float64)
    # The last level may be infinite, and nothing times infinity is no number.
    above = np.where(between > 0, levels[np.minimum(low + 1, len(levels) - 1)], 0.0)
    sigmas: Floats = levels[low] * (1 - between) + above * between
    return sigmas


def _one_stride_on(config: SchedulerConfig, times: Floats, training: NDArray[np.float32]) -> Floats:
    """[n] levels one stride (N // n) after each time: where DDIM steps to in diffusers.

    Where n does not divide N, that is not the next time of a trailing or linspace schedule. Before the
    first training time it is alpha_0, or sigma 0 with `set_alpha_to_one`.
    """
    after = times.astype(np.int64) - config.num_train_timesteps // len(times)
    final = 0.0 if config.set_alpha_to_one else training[0]
    goals: Floats = np.where(after >= 0, training[after.clip(0)], final).astype(np.float64)
    return goals


# --- noise levels ---


def _spaced_sigmas(
    config: SchedulerConfig, spacing: str, steps: int, grid: Grid, training: NDArray[np.float32]
) -> tuple[Floats, Floats]:
    """[steps] times and sigmas of a schedule that places sigmas."""
    highest, lowest = float(training[-1]), float(training[0])
    if grid == "fractional":
        spaced = _at_times(_spaced_times(config, config.timestep_spacing, steps, grid), training)
        highest, lowest = float(spaced[0]), float(spaced[-1])
    formula = {"karras": karras_sigmas, "exponential": exponential_sigmas, "beta": beta_sigmas}[spacing]
    sigmas = formula(highest, lowest, steps)
    times = times_of_sigmas(sigmas, training)
    if grid == "open":
        times = times.round() if spacing == "karras" else np.floor(times)
    return times, sigmas


def _custom_sigmas(sigmas: tuple[float, ...], training: NDArray[np.float32]) -> Floats:
    highest = float(training[-1]) * _SLACK
    if sigmas[0] > highest:
        raise InvalidRequest("sigmas", f"{sigmas[0]:g}", allowed=f"{highest:.4g} to 0")
    return np.array(sigmas, np.float64)
