"""The consistency functions against diffusers' schedulers, and their values written out."""

from __future__ import annotations

import math
from inspect import signature
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler

from intaglio_train import ConfigError
from intaglio_train.consistency import (
    consistent,
    ddim_step,
    denoised_and_noise,
    end_times,
    guided,
    huber_errors,
    teacher_times,
)
from intaglio_train.loss import NoiseSchedule, noise_schedule_of
from miniature import architecture

CPU = torch.device("cpu")
PREDICTIONS = ["epsilon", "v_prediction"]


def solver_of(kind: type[Any], prediction: str = "epsilon", **changes: Any) -> Any:
    """A solver of diffusers with the miniature's schedule."""
    known = signature(kind).parameters
    keys = architecture.SCHEDULER | architecture.SCHEDULER_EXTRAS | {"prediction_type": prediction} | changes
    return kind(**{key: value for key, value in keys.items() if key in known})


def schedule_of(prediction: str, **changes: Any) -> NoiseSchedule:
    return noise_schedule_of(solver_of(DDIMScheduler, prediction, **changes), CPU)


def tensors(seed: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_the_teacher_begins_where_diffusers_lcm_solver_draws() -> None:
    scheduler = solver_of(LCMScheduler)
    scheduler.set_timesteps(50)
    times = teacher_times(50, schedule_of("epsilon"))
    assert list(times) == scheduler.timesteps.tolist()[::-1]
    assert times.step == 20


def test_more_steps_than_noise_levels_are_refused() -> None:
    levels = NoiseSchedule(torch.linspace(0.9, 0.1, 4), "epsilon")
    assert list(teacher_times(4, levels)) == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="teacher_steps 5: the model has 4 noise levels; give at most 4"):
        teacher_times(5, levels)


@pytest.mark.parametrize(("count", "right"), [(600, "500 or 1000"), (3, "2 or 4"), (49, "40 or 50")])
def test_steps_that_leave_out_the_noisiest_levels_are_refused(count: int, right: str) -> None:
    message = f"teacher_steps {count}: does not divide the model's 1000 noise levels; give {right}$"
    with pytest.raises(ConfigError, match=message):
        teacher_times(count, schedule_of("epsilon"))


def test_predicted_noise_is_refused_where_the_last_level_has_no_signal() -> None:
    with pytest.raises(ConfigError, match="predicts noise and its schedule ends at zero SNR"):
        teacher_times(50, schedule_of("epsilon", rescale_betas_zero_snr=True))


def test_a_predicted_velocity_is_finite_where_the_last_level_has_no_signal() -> None:
    schedule = schedule_of("v_prediction", rescale_betas_zero_snr=True)
    assert schedule.alphas[-1] == 0
    times = torch.tensor([*teacher_times(50, schedule)][-3:])
    noisy, predicted = tensors(0), tensors(1)
    denoised, noise = denoised_and_noise(schedule, noisy, times, predicted)
    cleaner = ddim_step(schedule, denoised, noise, end_times(times, 20))
    for found in (cleaner, consistent(noisy, times, denoised)):
        assert found.isfinite().all()
    torch.testing.assert_close(denoised[-1], -predicted[-1])


def test_the_last_step_ends_at_time_0() -> None:
    assert end_times(torch.tensor([19, 39, 999]), 20).tolist() == [0, 19, 979]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_teachers_step_is_diffusers_ddim(prediction: str) -> None:
    scheduler = solver_of(DDIMScheduler, prediction)
    scheduler.set_timesteps(50)
    schedule = schedule_of(prediction)
    times = torch.tensor([39, 499, 999])
    noisy, predicted = tensors(0), tensors(1)
    denoised, noise = denoised_and_noise(schedule, noisy, times, predicted)
    ours = ddim_step(schedule, denoised, noise, end_times(times, 20))
    for row, time in enumerate(times.tolist()):
        theirs = scheduler.step(predicted[row], time, noisy[row]).prev_sample
        torch.testing.assert_close(ours[row], theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_function_is_what_diffusers_lcm_solver_takes_for_the_picture(prediction: str) -> None:
    scheduler = solver_of(LCMScheduler, prediction)
    scheduler.set_timesteps(4)
    schedule = schedule_of(prediction)
    for row, time in enumerate(scheduler.timesteps.tolist()):
        noisy, predicted = tensors(2 * row, 1), tensors(2 * row + 1, 1)
        times = torch.tensor([time])
        denoised, _ = denoised_and_noise(schedule, noisy, times, predicted)
        theirs = scheduler.step(predicted, time, noisy).denoised
        torch.testing.assert_close(consistent(noisy, times, denoised), theirs, rtol=1e-4, atol=1e-4)


def test_at_time_0_the_function_is_its_input() -> None:
    noisy = tensors(0)
    assert torch.equal(consistent(noisy, torch.zeros(3, dtype=torch.int64), tensors(1)), noisy)


def test_early_in_the_schedule_the_input_counts_and_later_it_does_not() -> None:
    ones, zeros = torch.ones(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)
    times = torch.tensor([1, 999])
    skip = consistent(ones, times, zeros)[:, 0, 0, 0]
    out = consistent(zeros, times, ones)[:, 0, 0, 0]
    assert skip.tolist() == pytest.approx([0.25 / 100.25, 0.25 / (9990**2 + 0.25)])
    assert out.tolist() == pytest.approx([10 / math.sqrt(100.25), 1.0])


def test_guidance_is_the_pipelines_and_1_is_none() -> None:
    conditional, unconditional = tensors(0, 2), tensors(1, 2)
    both = guided(conditional, unconditional, torch.tensor([1.0, 5.0]))
    torch.testing.assert_close(both[0], conditional[0])
    torch.testing.assert_close(both[1], unconditional[1] + 5 * (conditional[1] - unconditional[1]))


def test_the_error_is_pseudo_huber() -> None:
    zeros = torch.zeros(3, 4, 8, 8)
    answered = zeros + torch.tensor([0.0, 3.0, 1e-4]).view(-1, 1, 1, 1)
    errors = huber_errors(answered, zeros, 1e-3)
    assert errors.tolist() == pytest.approx([0.0, math.hypot(3, 1e-3) - 1e-3, 1e-8 / 2e-3], rel=3e-2)
