"""Noise levels of the training times."""

from __future__ import annotations

import math

import diffusers
import numpy as np
import pytest

from intaglio.sampling.noise_levels import Level, times_of_sigmas, training_sigmas
from intaglio.sampling.scheduler_config import SchedulerConfig

from ...parity import SDXL_SCHEDULER

ZERO_SNR = SchedulerConfig(rescale_betas_zero_snr=True)


def test_forms_of_a_level() -> None:
    for ratio in (14.6, 1.0, 0.03):
        level = Level(ratio)
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1)
        assert level.sigma / level.alpha == pytest.approx(ratio)
        assert level.log_snr == pytest.approx(-math.log(ratio))
    assert (Level(0).alpha, Level(0).sigma, Level(0).log_snr) == (1, 0, math.inf)
    assert (Level(math.inf).alpha, Level(math.inf).sigma) == (0, 1)


@pytest.mark.parametrize("zero_snr", [False, True])
def test_training_levels_are_diffusers(zero_snr: bool) -> None:
    config = SDXL_SCHEDULER | {"rescale_betas_zero_snr": zero_snr}
    scheduler = diffusers.EulerDiscreteScheduler.from_config(config)
    expected = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod) ** 0.5
    found = training_sigmas(SchedulerConfig.from_mapping(config))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)


def test_zero_terminal_snr_is_pure_noise_without_a_floor() -> None:
    assert training_sigmas(ZERO_SNR)[-1] == pytest.approx(2**12, rel=1e-6)
    exact = training_sigmas(ZERO_SNR, floor=False)
    assert math.isinf(exact[-1])
    np.testing.assert_array_equal(exact[:-1], training_sigmas(ZERO_SNR)[:-1])
    assert exact[0] == pytest.approx(training_sigmas(SchedulerConfig())[0], rel=1e-3)


def test_a_training_level_has_its_training_time() -> None:
    training = training_sigmas(SchedulerConfig())
    times = times_of_sigmas(training.astype(np.float64), training)
    np.testing.assert_allclose(times, np.arange(1000), atol=1e-3)
    assert times[-1] == 999, "a time below would be cut to 998"
    assert times_of_sigmas(np.array([1e6, 1e-6]), training).tolist() == [999, 0]
