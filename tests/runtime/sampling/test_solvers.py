"""Solver tables against diffusers' own schedulers, over whole trajectories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from intaglio.errors import ConfigError, InvalidRequest
from intaglio.sampling.solvers import SOLVERS, model_calls, solver_table
from intaglio.sampling.trajectory import Trajectory

from ...parity import SDXL_SCHEDULER, SIGMA_SPACINGS, scheduler_for
from .trajectories import SHAPE, largest_difference, largest_error, table_trajectory

STEPS = (1, 2, 3, 4, 8, 13, 20, 30, 60)
FEW_STEP = ("lcm", "tcd")
TIME_SOLVERS = ("ddim", *FEW_STEP)
"""They step between training times."""
FREE = [name for name in SOLVERS if name not in (*FEW_STEP, "dpmpp_2m_karras")]
"""diffusers' class of each reads timestep_spacing, and the name leaves it open."""
WITH_SIGMAS = [name for name in FREE if name not in ("euler_a", "ddim")]
"""diffusers' class of each reads use_karras_sigmas and the like."""
TWO_CALLS = ("heun", "dpmpp_sde")


def plain(scheduler: str, steps: int = 20, **values: Any) -> Trajectory:
    return Trajectory(scheduler=scheduler, steps=steps, **values)


def step_counts(name: str) -> tuple[int, ...]:
    return tuple(min(steps, 50) for steps in STEPS) if name in FEW_STEP else STEPS


@pytest.mark.parametrize("name", SOLVERS)
def test_trajectory_equals_diffusers(name: str) -> None:
    for steps in step_counts(name):
        assert largest_error(plain(name, steps)) < 1e-4, steps


@pytest.mark.parametrize("begin", [1, 6, 19])
@pytest.mark.parametrize("name", SOLVERS)
def test_image_to_image_equals_diffusers(name: str, begin: int) -> None:
    assert largest_error(plain(name), begin=begin) < 1e-4


@pytest.mark.parametrize("schedule", ["leading", "trailing", "linspace", "beta", "exponential", "karras"])
@pytest.mark.parametrize("name", FREE)
def test_every_schedule_equals_diffusers(name: str, schedule: str) -> None:
    """With DDIM also where the steps do not divide the training times."""
    if schedule in SIGMA_SPACINGS and name not in WITH_SIGMAS:
        pytest.skip("diffusers' class takes no notice of it")
    if schedule == "beta":
        pytest.importorskip("scipy", reason="diffusers computes it with scipy")
    for steps in (1, 2, 7, 20, 33, 60):
        assert largest_error(plain(name, steps, schedule=schedule)) < 1e-4, steps


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", *FEW_STEP])
def test_custom_times_and_align_your_steps_equal_diffusers(name: str) -> None:
    assert largest_error(plain(name, 10, schedule="ays")) < 1e-4
    assert largest_error(plain(name, 4, timesteps=(999, 749, 499, 249))) < 1e-4
    assert largest_error(plain(name, 1, timesteps=(800,))) < 1e-4


def test_custom_sigmas_equal_diffusers() -> None:
    sigmas = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.0)
    assert largest_error(plain("euler", 10, sigmas=sigmas)) < 1e-4
    assert largest_error(plain("euler", 3, sigmas=(9.0, 3.0, 1.0, 0.5))) < 1e-4


@pytest.mark.parametrize("eta", [0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("name", ["ddim", "tcd"])
def test_eta_equals_diffusers(name: str, eta: float) -> None:
    for steps in (1, 4, 8, 33):
        assert largest_error(plain(name, steps, eta=eta)) < 1e-4, steps
    assert largest_error(plain(name, eta=eta), begin=6) < 1e-4


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
@pytest.mark.parametrize("name", SOLVERS)
def test_predictions_equal_diffusers(name: str, kind: str) -> None:
    if kind == "sample" and name in ("euler_a", *TWO_CALLS):
        pytest.skip("diffusers' class does not compute it")
    for schedule in (None, "trailing", "karras"):
        if schedule is None or (name in FREE and (schedule == "trailing" or name in WITH_SIGMAS)):
            for steps in (1, 4, 20):
                config = SDXL_SCHEDULER | {"prediction_type": kind}
                assert largest_error(plain(name, steps, schedule=schedule), config=config) < 1e-4


@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in TWO_CALLS])
def test_zero_terminal_snr_equals_diffusers(name: str) -> None:
    """The first sigma is 4096, where float32 resolves 2.4e-4; diffusers rounds x there, and the next x."""
    config = SDXL_SCHEDULER | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    for schedule in (None, "trailing"):
        if schedule is None or name in FREE:
            for steps in (1, 4, 20):
                rounded = schedule is not None and name in ("euler", "euler_a")
                error = largest_error(plain(name, steps, schedule=schedule), config=config)
                assert error < (1e-3 if rounded else 1e-4)


@pytest.mark.parametrize("name", TWO_CALLS)
def test_zero_terminal_snr_holds_where_diffusers_forgets_it(name: str) -> None:
    """diffusers' Heun and DPM++ SDE use the plain betas of such a model."""
    config = SDXL_SCHEDULER | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    table = solver_table(plain(name, 4, schedule="trailing"), scheduler_config=config)
    assert table.init_scale == pytest.approx(4096, rel=1e-4)
    assert np.isfinite(table.coefficients).all()


@pytest.mark.parametrize("name", ["ddim", "lcm", "tcd"])
def test_noise_prediction_says_nothing_at_zero_terminal_snr(name: str) -> None:
    config = SDXL_SCHEDULER | {"rescale_betas_zero_snr": True}
    with pytest.raises(ConfigError, match="must be v_prediction or sample"):
        solver_table(plain(name, 1, schedule="trailing"), scheduler_config=config)


# Karras times are rounded, so there the toy model could not know its noise level from the time.
@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "dpmpp_2m_karras"])
def test_all_predictions_of_one_model_make_one_trajectory(name: str) -> None:
    """Also where diffusers does not compute a prediction: the types differ in form alone."""
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))

    def trajectory(kind: str) -> list[Any]:
        config = SDXL_SCHEDULER | {"prediction_type": kind}
        table = solver_table(plain(name, 8), scheduler_config=config)
        return table_trajectory(table, start * table.init_scale, predicted=kind, config=config)

    expected = trajectory("epsilon")
    for kind in ("v_prediction", "sample"):
        assert largest_difference(expected, trajectory(kind)) < 1e-4


def test_ddim_is_euler_in_another_space() -> None:
    """Both are exact for a constant eps, so on one schedule they go to the same places."""
    times = (900, 600, 300, 100)
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    euler = solver_table(plain("euler", 4, timesteps=times))
    ddim = solver_table(plain("ddim", 4, timesteps=times))
    expected = [x * euler.input_scale[i + 1] for i, x in enumerate(table_trajectory(euler, start)[:3])]
    found = table_trajectory(ddim, start * float(euler.input_scale[0]))[:3]
    assert largest_difference(expected, found) < 1e-4


def test_sparse_steps_are_larger_steps() -> None:
    """A prediction that is used for two steps of Euler's is a step twice as long."""
    dense = solver_table(plain("euler", 20))
    sparse = plain("euler", 20, sparse_begin=0.3, sparse_every=2)
    table = solver_table(sparse)
    kept = [*range(6), *range(6, 20, 2)]
    assert sparse.kept == kept
    assert model_calls(sparse) == len(table) == len(kept)
    np.testing.assert_array_equal(table.timesteps, dense.timesteps[kept])
    np.testing.assert_array_equal(table.coefficients[:5], dense.coefficients[:5])
    together = dense.coefficients[6, 0, 4] + dense.coefficients[7, 0, 4]
    assert table.coefficients[6, 0, 4] == pytest.approx(together, rel=1e-5)
    assert table.coefficients[-1, 0, 4] == pytest.approx(dense.coefficients[-2:, 0, 4].sum(), rel=1e-5)


@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in ("unipc",)])
def test_sparse_steps_stop_at_the_same_end(name: str) -> None:
    if "2m" in name:
        with pytest.raises(InvalidRequest, match=r"its last predictions.*allowed: absent, or with euler"):
            solver_table(plain(name, sparse_every=2))
        return
    table = solver_table(plain(name, sparse_every=3))
    assert len(table) == model_calls(plain(name, sparse_every=3)) < model_calls(plain(name))
    assert np.isfinite(table.coefficients).all()


def test_other_betas_and_final_alpha_equal_diffusers() -> None:
    config = SDXL_SCHEDULER | {
        "beta_end": 0.02,
        "steps_offset": 0,
        "set_alpha_to_one": True,
        "num_train_timesteps": 500,
    }
    assert max(largest_error(plain(name, 8), config=config) for name in SOLVERS) < 1e-4
    other = config | {"set_alpha_to_one": False}
    assert not np.array_equal(
        solver_table(plain("ddim", 8), scheduler_config=config).coefficients,
        solver_table(plain("ddim", 8), scheduler_config=other).coefficients,
    )


@pytest.mark.parametrize("flag", ["use_karras_sigmas", "use_exponential_sigmas"])
@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "dpmpp_2m_karras"])
def test_what_the_file_says_of_sigmas_is_used_where_diffusers_uses_it(name: str, flag: str) -> None:
    config = SDXL_SCHEDULER | {flag: True, "timestep_spacing": "linspace"}
    assert largest_error(plain(name, 8), config=config) < 1e-4


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_karras", "unipc", "euler", "ddim"])
def test_timesteps_equal_diffusers_for_every_step_count(name: str) -> None:
    """Karras times are rounded, so a schedule off by one bit would show up as another training time."""
    scheduler = scheduler_for(name, SDXL_SCHEDULER)
    for steps in range(1, 151):
        scheduler.set_timesteps(steps)
        table = solver_table(plain(name, steps))
        np.testing.assert_array_equal(table.timesteps, scheduler.timesteps.numpy())


@pytest.mark.parametrize("schedule", ["trailing", "linspace"])
@pytest.mark.parametrize("name", ["dpmpp_2m", "euler", "ddim"])
def test_spaced_timesteps_equal_diffusers_for_every_step_count(name: str, schedule: str) -> None:
    scheduler = scheduler_for(name, SDXL_SCHEDULER, schedule=schedule)
    for steps in range(1, 61):
        scheduler.set_timesteps(steps)
        table = solver_table(plain(name, steps, schedule=schedule))
        np.testing.assert_allclose(table.timesteps, scheduler.timesteps.numpy(), atol=1e-3)


@pytest.mark.parametrize("name", SOLVERS)
def test_table_has_the_promised_form(name: str) -> None:
    table = solver_table(plain(name, 9), begin=2)
    assert len(table) == (13 if name in TWO_CALLS else 7)
    assert model_calls(plain(name, 7)) == len(table)
    assert table.coefficients.shape == (len(table), 4, 6)
    assert {array.dtype for array in (table.timesteps, table.input_scale, table.coefficients)} == {
        np.dtype(np.float32)
    }
    assert np.isfinite(table.coefficients).all()
    assert table.needs_noise == bool(table.coefficients[:, :, 5].any())
    first = table.coefficients[0]
    assert not first[0, 1:4].any(), "the first step reads history that is not there yet"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (plain("plms"), "scheduler: 'plms' is unknown; allowed: euler, euler_a"),
        (plain("euler", 0), "steps: 0 is out of range for euler; allowed: 1 to 998"),
        (plain("euler", 1000), "1 to 998"),
        (plain("lcm", 51), "1 to 50"),
        (plain("dpmpp_2m_karras", schedule="beta"), "schedule: dpmpp_2m_karras has the schedule karras"),
        (plain("dpmpp_2m_karras", 1, timesteps=(800,)), "scheduler: dpmpp_2m_karras has the schedule karras"),
        (plain("lcm", schedule="karras"), "schedule: 'karras', but lcm steps between training times"),
        (plain("tcd", 1, sigmas=(9.0, 0.0)), "sigmas: tcd steps between training times"),
        (plain("euler_a", eta=0.5), "eta: euler_a has none; allowed: absent, or with ddim, tcd"),
        (plain("euler", 1, timesteps=(1000,)), "timesteps: 1000; allowed: 999 to 0"),
        (plain("euler", 1, sigmas=(15.0, 0.0)), "sigmas: 15; allowed: 14.76 to 0"),
        (plain("lcm", 60, schedule="ays"), "steps: 60 with schedule ays, and two would share"),
    ],
)
def test_impossible_requests_are_refused(asked: Trajectory, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        solver_table(asked)


@pytest.mark.parametrize("name", FEW_STEP)
def test_custom_times_may_be_more_than_those_of_the_distillation(name: str) -> None:
    times = tuple(float(time) for time in range(900, 840, -1))
    assert len(solver_table(plain(name, len(times), timesteps=times))) == 60


@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc"])
def test_the_closest_custom_sigmas_keep_coefficients_small(name: str) -> None:
    sigmas = (14.0, 14.0 * 0.999, 1.0, 1e-4, 0.0)
    table = solver_table(plain(name, len(sigmas) - 1, sigmas=sigmas))
    assert np.abs(table.coefficients).max() < 2e4, "float32 keeps three digits"


def test_align_your_steps_is_a_table_of_a_thousand_training_times() -> None:
    with pytest.raises(InvalidRequest, match="this model has 500"):
        solver_table(
            plain("euler", 8, schedule="ays"), scheduler_config=SDXL_SCHEDULER | {"num_train_timesteps": 500}
        )


@pytest.mark.parametrize("begin", [-1, 20])
def test_a_beginning_outside_the_schedule_is_refused(begin: int) -> None:
    with pytest.raises(ValueError, match="0 to 19"):
        solver_table(plain("euler"), begin=begin)


@pytest.mark.parametrize("name", SOLVERS)
def test_longest_schedules_are_finite(name: str) -> None:
    for steps in (150, 998):
        asked = plain(name, min(steps, 50) if name in FEW_STEP else steps)
        assert np.isfinite(solver_table(asked).coefficients).all()


@pytest.mark.parametrize("name", ["ddim", "lcm", "heun"])
def test_clipping_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="clip_sample=True clips"):
        solver_table(plain(name), scheduler_config=SDXL_SCHEDULER | {"clip_sample": True})


def test_absent_clip_sample_means_clipping_as_in_diffusers() -> None:
    config = {key: value for key, value in SDXL_SCHEDULER.items() if key != "clip_sample"}
    assert max(largest_error(plain(name, 4), config=config) for name in SOLVERS if name != "ddim") < 1e-4
    assert scheduler_for("ddim", config).config.clip_sample
    with pytest.raises(ConfigError, match="clip_sample"):
        solver_table(plain("ddim"), scheduler_config=config)
