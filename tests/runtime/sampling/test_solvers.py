"""Solver tables against diffusers' own schedulers, over whole trajectories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from intaglio.errors import ConfigError, InvalidRequest
from intaglio.sampling.solvers import SOLVERS, SolverTable, advance_state, initial_state, solver_table

from ...parity import SDXL_SCHEDULER, scheduler_for

SHAPE = (2, 4, 6, 5)
STEPS = (1, 2, 3, 4, 8, 13, 20, 30, 50)


def fake_model(x: torch.Tensor, t: float) -> torch.Tensor:
    """A nonlinear eps that depends on x, on its neighbours and on t."""
    return torch.tanh(0.8 * x + 0.3 * x.roll(1, -1) * np.cos(0.01 * t)) + 0.2 * torch.sin(3 * x + 0.002 * t)


def diffusers_trajectory(
    scheduler: Any, start: torch.Tensor, begin: int, generator: torch.Generator
) -> list[NDArray[np.float32]]:
    """x after every step, by diffusers."""
    x, trajectory = start, []
    for t in scheduler.timesteps[begin:]:
        eps = fake_model(scheduler.scale_model_input(x, t), float(t))
        draws = {"generator": generator} if "generator" in scheduler.step.__code__.co_varnames else {}
        x = scheduler.step(eps, t, x, **draws).prev_sample
        trajectory.append(x.numpy())
    return trajectory


def table_trajectory(
    table: SolverTable, start: torch.Tensor, generator: torch.Generator
) -> list[NDArray[np.float32]]:
    """x after every step, by the table."""
    state, trajectory = initial_state(start.numpy()), []
    for t, scale, coefficients in zip(table.timesteps, table.input_scale, table.coefficients, strict=True):
        eps = fake_model(torch.from_numpy(state[0] * scale), float(t)).numpy()
        noise = torch.randn(SHAPE, generator=generator).numpy() if table.needs_noise else None
        state = advance_state(coefficients, state, eps, noise)
        trajectory.append(state[0])
    return trajectory


def largest_error(name: str, steps: int, *, config: dict[str, Any] = SDXL_SCHEDULER, begin: int = 0) -> float:
    """Largest difference over a trajectory, relative to the largest value of each step."""
    scheduler = scheduler_for(name, config)
    scheduler.set_timesteps(steps)
    table = solver_table(name, steps, scheduler_config=config, begin=begin)
    np.testing.assert_array_equal(table.timesteps, scheduler.timesteps[begin:].numpy())
    generators = [torch.Generator().manual_seed(7) for _ in range(2)]
    noise, image = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)), torch.full(SHAPE, 0.7)
    if begin:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        theirs = scheduler.add_noise(image, noise, scheduler.timesteps[begin : begin + 1])
        ours = table.start_signal * image + table.start_noise * noise
    else:
        theirs, ours = noise * scheduler.init_noise_sigma, noise * table.init_scale
    expected = [theirs.numpy(), *diffusers_trajectory(scheduler, theirs, begin, generators[0])]
    found = [ours.numpy(), *table_trajectory(table, ours, generators[1])]
    assert len(expected) == len(found) == steps - begin + 1
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", SOLVERS)
def test_trajectory_equals_diffusers(name: str, steps: int) -> None:
    assert largest_error(name, steps) < 1e-4


@pytest.mark.parametrize("begin", [1, 6, 19])
@pytest.mark.parametrize("name", SOLVERS)
def test_image_to_image_equals_diffusers(name: str, begin: int) -> None:
    assert largest_error(name, 20, begin=begin) < 1e-4


@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("name", SOLVERS)
def test_trailing_schedule_equals_diffusers(name: str, steps: int) -> None:
    """The schedule of few-step SDXL (Turbo, Lightning)."""
    assert largest_error(name, steps, config=SDXL_SCHEDULER | {"timestep_spacing": "trailing"}) < 1e-4


def test_other_betas_and_final_alpha_equal_diffusers() -> None:
    config = SDXL_SCHEDULER | {
        "beta_end": 0.02,
        "steps_offset": 0,
        "set_alpha_to_one": True,
        "num_train_timesteps": 500,
    }
    assert max(largest_error(name, 8, config=config) for name in SOLVERS) < 1e-4
    assert not np.array_equal(
        solver_table("ddim", 8, scheduler_config=config).coefficients,
        solver_table("ddim", 8, scheduler_config=config | {"set_alpha_to_one": False}).coefficients,
    )


@pytest.mark.parametrize("name", ["dpmpp_2m_karras", "unipc", "euler", "ddim"])
def test_timesteps_equal_diffusers_for_every_step_count(name: str) -> None:
    """Karras times are rounded, so a schedule off by one bit would show up as another training time."""
    scheduler = scheduler_for(name, SDXL_SCHEDULER)
    for steps in range(1, 151):
        scheduler.set_timesteps(steps)
        np.testing.assert_array_equal(solver_table(name, steps).timesteps, scheduler.timesteps.numpy())


@pytest.mark.parametrize("name", SOLVERS)
def test_table_has_the_promised_form(name: str) -> None:
    table = solver_table(name, 9, begin=2)
    assert len(table) == 7
    assert table.coefficients.shape == (7, 4, 6)
    assert {array.dtype for array in (table.timesteps, table.input_scale, table.coefficients)} == {
        np.dtype(np.float32)
    }
    assert np.isfinite(table.coefficients).all()
    assert table.needs_noise == bool(table.coefficients[:, :, 5].any())
    first = table.coefficients[0]
    assert not first[0, 1:4].any(), "the first step reads history that is not there yet"


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("plms", 20, "scheduler: 'plms' is unknown; allowed: euler, euler_a"),
        ("euler", 0, "steps: 0 is out of range for euler; allowed: 1 to 998"),
        ("euler", 1000, "1 to 998"),
        ("lcm", 51, "1 to 50"),
    ],
)
def test_impossible_requests_are_refused(name: str, steps: int, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        solver_table(name, steps)


def test_ddim_on_a_trailing_schedule_needs_even_steps() -> None:
    """There diffusers steps to a time that is not the next one it evaluates."""
    with pytest.raises(InvalidRequest, match="divisors of 1000"):
        solver_table("ddim", 30, scheduler_config=SDXL_SCHEDULER | {"timestep_spacing": "trailing"})


@pytest.mark.parametrize("begin", [-1, 20])
def test_a_beginning_outside_the_schedule_is_refused(begin: int) -> None:
    with pytest.raises(ValueError, match="0 to 19"):
        solver_table("euler", 20, begin=begin)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("steps", [150, 998])
def test_longest_schedules_are_finite(name: str, steps: int) -> None:
    assert np.isfinite(solver_table(name, min(steps, 50) if name == "lcm" else steps).coefficients).all()


@pytest.mark.parametrize("name", ["ddim", "lcm"])
def test_clipping_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="clip_sample=True clips"):
        solver_table(name, 20, scheduler_config=SDXL_SCHEDULER | {"clip_sample": True})


def test_absent_clip_sample_means_clipping_as_in_diffusers() -> None:
    config = {key: value for key, value in SDXL_SCHEDULER.items() if key != "clip_sample"}
    assert max(largest_error(name, 4, config=config) for name in SOLVERS if name != "ddim") < 1e-4
    assert scheduler_for("ddim", config).config.clip_sample
    with pytest.raises(ConfigError, match="clip_sample"):
        solver_table("ddim", 20, scheduler_config=config)
