"""Whole trajectories of a toy model, by diffusers' schedulers and by our tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers.schedulers import AysSchedules
from numpy.typing import NDArray

from intaglio.sampling.noise_levels import Level, training_sigmas
from intaglio.sampling.scheduler_config import SchedulerConfig
from intaglio.sampling.solvers import SolverTable, advance_state, initial_state, solver_table
from intaglio.sampling.trajectory import Trajectory

from ...parity import SDXL_SCHEDULER, scheduler_for

__all__ = ["SHAPE", "diffusers_ays", "largest_difference", "largest_error", "table_trajectory"]

SHAPE = (2, 4, 6, 5)
NUMPY_2 = int(np.__version__.partition(".")[0]) >= 2
Floats = NDArray[np.float32]


def fake_model(x: torch.Tensor, t: float) -> torch.Tensor:
    """A nonlinear output that depends on x, on its neighbours and on t."""
    return torch.tanh(0.8 * x + 0.3 * x.roll(1, -1) * np.cos(0.01 * t)) + 0.2 * torch.sin(3 * x + 0.002 * t)


def largest_error(
    trajectory: Trajectory, *, config: dict[str, Any] = SDXL_SCHEDULER, begin: int = 0
) -> float:
    """Largest difference from diffusers over a trajectory, relative to the largest value of each call.

    The times that the model gets are compared, too.
    """
    scheduler = _placed(trajectory, config)
    table = solver_table(trajectory, scheduler_config=config, begin=begin)
    first = begin * scheduler.order
    np.testing.assert_allclose(table.timesteps, scheduler.timesteps[first:].numpy(), atol=1e-3)
    noise, image = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)), torch.full(SHAPE, 0.7)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    if begin:
        theirs = scheduler.add_noise(image, noise, scheduler.timesteps[first : first + 1])
        ours = table.start_signal * image + table.start_noise * noise
    else:
        theirs, ours = noise * scheduler.init_noise_sigma, noise * table.init_scale
    expected = [theirs.numpy(), *_diffusers_trajectory(scheduler, theirs, first, trajectory.eta)]
    found = [ours.numpy(), *table_trajectory(table, ours)]
    assert len(expected) == len(found) == len(table) + 1
    return largest_difference(expected, found)


def largest_difference(expected: list[Floats], found: list[Floats]) -> float:
    """Largest difference of two trajectories, relative to the largest value of each call."""
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(expected, found, strict=True))


def _placed(trajectory: Trajectory, config: dict[str, Any]) -> Any:
    """diffusers' scheduler with its times set."""
    schedule = None if trajectory.schedule == "ays" else trajectory.schedule
    scheduler = scheduler_for(trajectory.scheduler, config, schedule=schedule)
    if trajectory.sigmas is not None:
        scheduler.set_timesteps(sigmas=list(trajectory.sigmas))
    elif trajectory.timesteps is not None or trajectory.schedule == "ays":
        table = diffusers_ays() if trajectory.timesteps is None else trajectory.timesteps
        scheduler.set_timesteps(timesteps=[int(time) for time in table])
    else:
        scheduler.set_timesteps(trajectory.steps)
    last = scheduler.config.num_train_timesteps - 1
    sigmas_placed = scheduler.config.get("use_exponential_sigmas") or scheduler.config.get("use_beta_sigmas")
    if NUMPY_2 and sigmas_placed and scheduler.timesteps[0] == last - 1:
        # WAR: numpy 2 computes the largest time in float64, as 998.99999, and diffusers cuts it to 998.
        scheduler.timesteps[0] = last
    return scheduler


def diffusers_ays() -> list[int]:
    """diffusers' own table."""
    return list(AysSchedules["StableDiffusionXLTimesteps"])


def _diffusers_trajectory(scheduler: Any, start: torch.Tensor, first: int, eta: float | None) -> list[Floats]:
    """x after every call, by diffusers."""
    generator = torch.Generator().manual_seed(7)
    arguments = scheduler.step.__code__.co_varnames
    said: dict[str, Any] = {"generator": generator} if "generator" in arguments else {}
    if "eta" in arguments:
        said["eta"] = eta or 0.0  # as diffusers' pipelines pass it
    if hasattr(scheduler, "noise_sampler"):
        scheduler.noise_sampler = BrownianPath(generator)
    x, trajectory = start, []
    for t in scheduler.timesteps[first:]:
        output = fake_model(scheduler.scale_model_input(x, t), float(t))
        x = scheduler.step(output, t, x, **said).prev_sample
        trajectory.append(x.numpy())
    return trajectory


class BrownianPath:
    """Normalised increments of one Brownian motion over sigma, as torchsde's tree has them.

    The tree has a seed of its own, which no pipeline sets; here the path is made of a generator's draws.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._half: tuple[float, float, torch.Tensor] | None = None

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        """The increment of the first half of a step, then that of the whole step."""
        fresh = torch.randn(SHAPE, generator=self._generator)
        start, end = float(sigma), float(sigma_next)
        if self._half is None:
            self._half = (start, end, fresh)
            return fresh
        _, middle, half = self._half
        self._half = None
        moved = half * (start - middle) ** 0.5 + fresh * (middle - end) ** 0.5
        return moved / (start - end) ** 0.5


def table_trajectory(
    table: SolverTable,
    start: torch.Tensor,
    *,
    predicted: str = "epsilon",
    config: dict[str, Any] = SDXL_SCHEDULER,
) -> list[Floats]:
    """x after every call, by the table.

    The toy model predicts noise; `predicted` says in which form it gives its prediction.
    """
    generator = torch.Generator().manual_seed(7)
    state, trajectory = initial_state(start.numpy()), []
    training = training_sigmas(SchedulerConfig.from_mapping(config))
    for t, scale, coefficients in zip(table.timesteps, table.input_scale, table.coefficients, strict=True):
        model_input = torch.from_numpy(state[0] * scale)
        output = fake_model(model_input, float(t)).numpy()
        level = Level(float(np.interp(t, np.arange(len(training)), training)))
        if scale != 1:
            level = Level(float(np.sqrt(1 / scale.astype(np.float64) ** 2 - 1)))
        if predicted == "v_prediction":
            output = (output - level.sigma * model_input.numpy()) / level.alpha
        elif predicted == "sample":
            output = (model_input.numpy() - level.sigma * output) / level.alpha
        noise = torch.randn(SHAPE, generator=generator).numpy() if table.needs_noise else None
        state = advance_state(coefficients, state, output.astype(np.float32), noise)
        trajectory.append(state[0])
    return trajectory
