"""Every solver is one linear update, so one graph serves them all.

Axes: `n` model calls, `K` = 4 rows of state, `B` images, `h` = H/8, `w` = W/8.

The state `S` is [K, B, 4, h, w]: `S[0]` is the latents x, and the solver keeps its history in the other rows.
One model call of any solver is

    model input = S[0] * input_scale[i]
    output      = model(model input, timesteps[i])
    S'          = coefficients[i] @ [S[0], S[1], S[2], S[3], output, noise]

so the exported graph knows no solver: it takes a 4x6 matrix. Neither does it know what the model predicts:
noise, velocity and image are linear in its output and its input. A solver is written as its paper writes it,
see `intaglio.sampling.rows`. Most solvers call the model once a step; Heun and DPM++ SDE call it twice.

The reference is diffusers 0.36: its schedulers, built with `.from_config(...)` of SDXL's
EulerDiscreteScheduler. Tests compare whole trajectories with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.sdxl import HISTORY, SOLVER_ROWS
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.sampling import few_step, multistep, one_step, two_stage
from intaglio.sampling.rows import Course, Row
from intaglio.sampling.scheduler_config import LCM_ORIGINAL_STEPS, SchedulerConfig
from intaglio.sampling.schedules import (
    Grid,
    Schedule,
    noise_schedule,
    spacing_of,
    with_midpoints,
    with_second_stages,
)
from intaglio.sampling.trajectory import TIME_SPACINGS, Trajectory

__all__ = ["SOLVERS", "SolverTable", "advance_state", "initial_state", "model_calls", "solver_table"]


@dataclass(frozen=True, slots=True)
class SolverTable:
    """What `diffuse` needs to run one solver from step `begin` to the end.

    Attributes:
        timesteps: [n] float32, the time that the model gets at each call.
        input_scale: [n] float32, the factor of x before the model gets it.
        coefficients: [n, 4, 6] float32; rows are the new state, columns S0, S1, S2, S3, output, noise.
        init_scale: a text-to-image trajectory starts at x = init_scale * standard normal noise
            (`init_noise_sigma`).
        start_signal, start_noise: an image-to-image trajectory starts at x = start_signal * image latents
            + start_noise * noise, at the first step of this table (`scheduler.add_noise`).
        needs_noise: every call needs a new standard normal tensor; otherwise the noise may be zeros. (At the
            last step of LCM and TCD diffusers draws none, and the table does not use it.)
    """

    timesteps: NDArray[np.float32]
    input_scale: NDArray[np.float32]
    coefficients: NDArray[np.float32]
    init_scale: float
    start_signal: float
    start_noise: float
    needs_noise: bool

    def __len__(self) -> int:
        return len(self.timesteps)


def solver_table(
    trajectory: Trajectory,
    *,
    scheduler_config: Mapping[str, Any] | SchedulerConfig | None = None,
    begin: int = 0,
) -> SolverTable:
    """Coefficients of `trajectory`, from step `begin` on.

    Args:
        trajectory: the solver and where its steps lie.
        scheduler_config: the model's scheduler_config.json; SDXL base's where absent.
        begin: the first step taken. Image-to-image with diffusers' `strength` starts at
            `steps - int(steps * strength)`.

    Raises:
        InvalidRequest: unknown solver, a number of steps that the schedule does not have, or a schedule that
            means nothing to the solver.
        ConfigError: a scheduler config these tables do not cover.
        ValueError: `begin` is outside the schedule.
    """
    solver = _solver(trajectory)
    config = scheduler_config or SchedulerConfig()
    config = config if isinstance(config, SchedulerConfig) else SchedulerConfig.from_mapping(config)
    _check_config(trajectory, config)
    if not solver.reads_sigma_spacing:
        config = config.without_sigma_spacing()
    if solver.schedule is not None:
        trajectory = replace(trajectory, schedule=solver.schedule)
    base = noise_schedule(config, trajectory, solver.grid)
    if not 0 <= begin < len(base):
        raise ValueError(
            f"begin={begin} is out of range; with {len(base)} steps it must be 0 to {len(base) - 1}"
        )
    schedule = solver.calls(replace(base, begin=begin))
    course = Course(
        schedule=schedule,
        prediction_type=config.prediction_type,
        sigma_space=solver.sigma_space,
        eta=trajectory.eta or 0.0,
    )
    calls = range(schedule.begin, len(schedule))
    start = schedule.level(schedule.begin)
    coefficients = np.array([_padded(solver.rows(course, i)) for i in calls])
    spacing = spacing_of(config, trajectory, solver.grid)
    return SolverTable(
        timesteps=schedule.timesteps[schedule.begin :].astype(np.float32),
        input_scale=np.array([course.input_scale(i) for i in calls], dtype=np.float32),
        coefficients=coefficients.astype(np.float32),
        init_scale=_init_scale(base, config, spacing) if solver.sigma_space else 1.0,
        start_signal=1.0 if solver.sigma_space else start.alpha,
        start_noise=start.ratio if solver.sigma_space else start.sigma,
        needs_noise=bool(coefficients[:, :, -1].any()),
    )


def model_calls(trajectory: Trajectory) -> int:
    """How often the model is called: the rows of the table.

    Raises:
        InvalidRequest: unknown solver.
    """
    steps = len(trajectory.kept)
    return 2 * steps - 1 if _solver(trajectory).calls is not _one_call else steps


def _init_scale(schedule: Schedule, config: SchedulerConfig, spacing: str) -> float:
    """diffusers' `init_noise_sigma` of EulerDiscreteScheduler."""
    top = float(schedule.sigmas[0])
    placed = spacing if spacing in ("leading", "trailing", "linspace") else config.timestep_spacing
    return math.hypot(top, 1) if placed == "leading" else top


def initial_state(latents: NDArray[np.float32]) -> NDArray[np.float32]:
    """[4, B, 4, h, w] state that starts a trajectory at latents [B, 4, h, w].

    The history rows are zeros; no solver reads them before it writes them.
    """
    state = np.zeros((HISTORY, *latents.shape), dtype=np.float32)
    state[0] = latents
    return state


def advance_state(
    coefficients: NDArray[np.float32],
    state: NDArray[np.float32],
    output: NDArray[np.float32],
    noise: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """One call in numpy: coefficients [4, 6], state [4, B, 4, h, w], output and noise [B, 4, h, w] -> state.

    Without `noise` it is zeros.
    """
    if noise is None:
        noise = np.zeros_like(output)
    inputs = np.stack([*state, output, noise])
    advanced: NDArray[np.float32] = np.tensordot(coefficients, inputs, axes=1)
    return advanced


# --- the table of solvers ---


def _padded(rows: tuple[Row, ...]) -> NDArray[np.float64]:
    """[4, 6]: rows that a solver does not use are zeros."""
    return np.array([*rows, *[np.zeros(SOLVER_ROWS)] * (HISTORY - len(rows))])


def _one_call(schedule: Schedule) -> Schedule:
    """Model calls of a solver that calls the model once a step."""
    return schedule


@dataclass(frozen=True, slots=True)
class _Solver:
    """A solver's algebra and its schedule."""

    rows: Callable[[Course, int], tuple[Row, ...]]
    """(course, number of the model call) -> rows of the new state."""
    grid: Grid
    sigma_space: bool = False
    """x = x0 + sigma eps, scaled before the model sees it; otherwise x = alpha x0 + sigma eps."""
    calls: Callable[[Schedule], Schedule] = _one_call
    schedule: str | None = None
    """The only schedule that the solver's name allows."""
    reads_sigma_spacing: bool = True
    """Whether diffusers' class reads `use_karras_sigmas` and the like in the file."""
    multistep: bool = False
    has_eta: bool = False


_SOLVERS: Final[Mapping[str, _Solver]] = {
    "euler": _Solver(one_step.euler, "fractional", sigma_space=True),
    "euler_a": _Solver(one_step.euler_ancestral, "fractional", sigma_space=True, reads_sigma_spacing=False),
    "heun": _Solver(two_stage.heun, "fractional", sigma_space=True, calls=with_second_stages),
    "ddim": _Solver(one_step.ddim, "whole", has_eta=True),
    "dpmpp_2m": _Solver(multistep.dpmpp_2m, "open", multistep=True),
    "dpmpp_2m_karras": _Solver(multistep.dpmpp_2m, "open", schedule="karras", multistep=True),
    "dpmpp_2m_sde": _Solver(multistep.dpmpp_2m_sde, "open", multistep=True),
    "dpmpp_sde": _Solver(two_stage.dpmpp_sde, "fractional", sigma_space=True, calls=with_midpoints),
    "unipc": _Solver(multistep.unipc, "open", multistep=True),
    "lcm": _Solver(few_step.lcm, "distilled"),
    "tcd": _Solver(few_step.tcd, "distilled", has_eta=True),
}
SOLVERS: Final[tuple[str, ...]] = tuple(_SOLVERS)


def _solver(trajectory: Trajectory) -> _Solver:
    """The solver that `trajectory` names.

    Raises:
        InvalidRequest: it is unknown, or what `trajectory` asks of it has no meaning.
    """
    name = trajectory.scheduler
    if name not in _SOLVERS:
        raise InvalidRequest("scheduler", f"{name!r} is unknown", allowed=", ".join(SOLVERS))
    solver = _SOLVERS[name]
    _check_spacing(trajectory, solver)
    if trajectory.sparse_every is not None and solver.multistep:
        one_call = ", ".join(key for key, other in _SOLVERS.items() if not other.multistep)
        problem = f"{name} uses its last predictions, which lie too far apart then"
        raise InvalidRequest("sparse_every", problem, allowed=f"absent, or with {one_call}")
    if trajectory.eta is not None and not solver.has_eta:
        with_eta = ", ".join(key for key, other in _SOLVERS.items() if other.has_eta)
        raise InvalidRequest("eta", f"{name} has none", allowed=f"absent, or with {with_eta}")
    return solver


def _check_spacing(trajectory: Trajectory, solver: _Solver) -> None:
    """Refuse a place of the steps that the solver cannot go to."""
    name, schedule = trajectory.scheduler, trajectory.schedule
    custom = trajectory.timesteps is not None or trajectory.sigmas is not None
    if solver.schedule is not None and (custom or schedule not in (None, solver.schedule)):
        field = "schedule" if schedule is not None else "scheduler"
        problem = f"{name} has the schedule {solver.schedule}"
        raise InvalidRequest(field, problem, allowed="dpmpp_2m, which takes any schedule")
    if solver.grid in ("fractional", "open"):
        return
    times = ", ".join(TIME_SPACINGS)
    problem = f"{name} steps between training times"
    if trajectory.sigmas is not None:
        raise InvalidRequest("sigmas", problem, allowed="timesteps, or another scheduler")
    if schedule is not None and schedule not in TIME_SPACINGS:
        raise InvalidRequest("schedule", f"{schedule!r}, but {problem}", allowed=times)


def _check_config(trajectory: Trajectory, config: SchedulerConfig) -> None:
    """Refuse what diffusers refuses, computes wrongly or clamps silently."""
    name = trajectory.scheduler
    most = config.num_train_timesteps - 1 - config.steps_offset
    if _SOLVERS[name].grid == "distilled" and trajectory.schedule is None:
        most = LCM_ORIGINAL_STEPS
    # Custom steps are none of a schedule, so the number of its places says nothing about them.
    custom = trajectory.timesteps is not None or trajectory.sigmas is not None
    if not custom and not 1 <= trajectory.steps <= most:
        raise InvalidRequest(
            "steps", f"{trajectory.steps} is out of range for {name}", allowed=f"1 to {most}"
        )
    # Absent, diffusers clips x0 in DDIM and not in the others; a clipped x0 is no linear update.
    clips = config.clip_sample is True and name in ("lcm", "heun")
    if clips or (config.clip_sample is not False and name == "ddim"):
        raise ConfigError(
            f"scheduler config: clip_sample={config.clip_sample!r} clips with {name}; it must be false"
        )
