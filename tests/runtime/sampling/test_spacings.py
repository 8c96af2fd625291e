"""Formulas that place steps."""

from __future__ import annotations

import numpy as np
import pytest

from intaglio.sampling.noise_levels import training_sigmas
from intaglio.sampling.scheduler_config import SchedulerConfig
from intaglio.sampling.spacings import (
    AYS_TIMES,
    ays_times,
    beta_quantiles,
    distilled_times,
    exponential_sigmas,
    karras_sigmas,
)

from .trajectories import diffusers_ays


def test_karras_levels_are_even_in_their_seventh_root() -> None:
    steps = np.diff(karras_sigmas(14.6, 0.03, 9) ** (1 / 7))
    np.testing.assert_allclose(steps, steps[0])


def test_exponential_levels_are_even_in_their_log() -> None:
    steps = np.diff(np.log(exponential_sigmas(14.6, 0.03, 9)))
    np.testing.assert_allclose(steps, steps[0])


def test_quantiles_are_those_of_the_density() -> None:
    """The share of the distribution below each quantile, summed up from its density t^-0.4 (1-t)^-0.4."""
    # With t = u^5 the density has no pole at 0.
    u = np.linspace(0, 0.5 ** (1 / 5), 200_001)
    density = 5 * u**2 * (1 - u**5) ** -0.4
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(u))])
    for share in (0.01, 0.1, 0.3, 0.5):
        quantile = float(beta_quantiles(np.array([share]))[0])
        found = np.interp(quantile ** (1 / 5), u, below) / (2 * below[-1])
        assert found == pytest.approx(share, rel=1e-6)
        assert beta_quantiles(np.array([1 - share]))[0] == pytest.approx(1 - quantile)
    assert beta_quantiles(np.array([0.0, 1.0])).tolist() == [0, 1]


def test_quantiles_equal_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    shares = np.linspace(0, 1, 61)
    np.testing.assert_allclose(beta_quantiles(shares), stats.beta.ppf(shares, 0.6, 0.6), atol=1e-12)


def test_align_your_steps_is_diffusers_table() -> None:
    assert list(AYS_TIMES) == diffusers_ays()
    training = training_sigmas(SchedulerConfig())
    np.testing.assert_allclose(ays_times(10, training), AYS_TIMES)
    more = ays_times(20, training)
    np.testing.assert_allclose(more[::2], AYS_TIMES)
    assert (np.diff(more) < 0).all()


def test_few_distilled_times() -> None:
    assert distilled_times(4, original=50, training_times=1000).tolist() == [999, 759, 499, 259]
