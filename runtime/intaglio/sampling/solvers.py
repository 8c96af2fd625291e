"""Every solver is one linear update, so one graph serves them all.

Axes: `n` solver steps, `K` = 4 rows of state, `B` images, `h` = H/8, `w` = W/8.

The state `S` is [K, B, 4, h, w]: `S[0]` is the latents x, and the solver keeps its history in the other rows.
One step of any solver is

    model input = S[0] * input_scale[i]
    eps         = model(model input, timesteps[i])
    S'          = coefficients[i] @ [S[0], S[1], S[2], S[3], eps, noise]

so the exported graph knows no solver: it takes a 4x6 matrix. A solver is written here as its paper writes it,
on symbols: `X`, `H1`, `H2`, `H3`, `EPS` and `NOISE` are the unit vectors of that six-dimensional space, and
an expression such as `(X - sigma * EPS) / alpha` *is* a row of the matrix. Rows are computed in float64.

The reference is diffusers 0.36: its schedulers, built with `.from_config(...)` of SDXL's
EulerDiscreteScheduler. Tests compare whole trajectories with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.sdxl import HISTORY, SOLVER_ROWS
from intaglio.errors import ConfigError, InvalidRequest
from intaglio.sampling.scheduler_config import LCM_ORIGINAL_STEPS, SchedulerConfig
from intaglio.sampling.schedules import (
    Schedule,
    ddim_schedule,
    euler_schedule,
    karras_schedule,
    lcm_schedule,
    unipc_schedule,
)

__all__ = ["SOLVERS", "SolverTable", "advance_state", "initial_state", "solver_table"]

Row = NDArray[np.float64]
"""One row of a coefficient matrix: [6], weights of S0, S1, S2, S3, eps, noise."""

X, H1, H2, H3, EPS, NOISE = np.eye(SOLVER_ROWS)
NOTHING: Final[Row] = np.zeros(SOLVER_ROWS)

LCM_TIMESTEP_SCALING: Final = 10.0
LCM_SIGMA_DATA: Final = 0.5
"""Both are of the boundary condition c_skip, c_out. Luo et al., arXiv 2310.04378."""


@dataclass(frozen=True, slots=True)
class SolverTable:
    """What `diffuse` needs to run one solver from step `begin` to the end.

    Attributes:
        timesteps: [n] float32, the time that the model gets at each step.
        input_scale: [n] float32, the factor of x before the model gets it.
        coefficients: [n, 4, 6] float32; rows are the new state, columns S0, S1, S2, S3, eps, noise.
        init_scale: a text-to-image trajectory starts at x = init_scale * standard normal noise
            (`init_noise_sigma`).
        start_signal, start_noise: an image-to-image trajectory starts at x = start_signal * image latents
            + start_noise * noise, at the first step of this table (`scheduler.add_noise`).
        needs_noise: every step needs a new standard normal tensor; otherwise the noise may be zeros. (At
            LCM's last step diffusers draws none, and the table does not use it.)
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
    name: str,
    steps: int,
    *,
    scheduler_config: Mapping[str, Any] | SchedulerConfig | None = None,
    begin: int = 0,
) -> SolverTable:
    """Coefficients of `steps` steps of solver `name`, from step `begin` on.

    Args:
        name: one of `SOLVERS`.
        steps: steps of the whole schedule, those before `begin` included.
        scheduler_config: the model's scheduler_config.json; SDXL base's where absent.
        begin: the first step taken. Image-to-image with diffusers' `strength` starts at
            `steps - int(steps * strength)`.

    Raises:
        InvalidRequest: unknown solver, or a number of steps that the schedule does not have.
        ConfigError: a scheduler config these tables do not cover.
        ValueError: `begin` is outside the schedule.
    """
    if name not in _SOLVERS:
        raise InvalidRequest("scheduler", f"{name!r} is unknown", allowed=", ".join(SOLVERS))
    config = scheduler_config or SchedulerConfig()
    config = config if isinstance(config, SchedulerConfig) else SchedulerConfig.from_mapping(config)
    solver = _SOLVERS[name]
    _check_request(name, steps, begin, config)
    schedule = solver.schedule(config, steps, begin)
    indices = range(begin, steps)
    alphas = [schedule.alpha_sigma(i)[0] for i in indices]
    input_scale = alphas if solver.sigma_space else [1.0] * len(alphas)
    start_alpha, start_sigma = schedule.alpha_sigma(begin)
    # x0 + sigma eps is 1 / alpha times alpha x0 + sigma eps.
    scale = start_alpha if solver.sigma_space else 1.0
    return SolverTable(
        timesteps=schedule.timesteps[begin:].astype(np.float32),
        input_scale=np.array(input_scale, dtype=np.float32),
        coefficients=np.array([_padded(solver.rows(schedule, i)) for i in indices], dtype=np.float32),
        init_scale=_init_scale(schedule, config) if solver.sigma_space else 1.0,
        start_signal=start_alpha / scale,
        start_noise=start_sigma / scale,
        needs_noise=solver.needs_noise,
    )


def _init_scale(schedule: Schedule, config: SchedulerConfig) -> float:
    """diffusers' `init_noise_sigma` of EulerDiscreteScheduler."""
    top = float(schedule.sigmas[0])
    return top if config.timestep_spacing == "trailing" else math.hypot(top, 1)


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
    eps: NDArray[np.float32],
    noise: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """One step in numpy: coefficients [4, 6], state [4, B, 4, h, w], eps and noise [B, 4, h, w] -> state.

    Without `noise` it is zeros.
    """
    if noise is None:
        noise = np.zeros_like(eps)
    inputs = np.stack([*state, eps, noise])
    advanced: NDArray[np.float32] = np.tensordot(coefficients, inputs, axes=1)
    return advanced


# --- solvers: (schedule, step) -> rows of the new state ---


def _euler(schedule: Schedule, i: int) -> tuple[Row, ...]:
    """Euler's method on dx/dsigma = eps. Karras et al., arXiv 2206.00364."""
    return (X + (schedule.sigmas[i + 1] - schedule.sigmas[i]) * EPS,)


def _euler_ancestral(schedule: Schedule, i: int) -> tuple[Row, ...]:
    """Euler to a lower noise level, then up again with new noise.

    k-diffusion, `sample_euler_ancestral` with eta 1.
    """
    sigma, sigma_next = schedule.sigmas[i], schedule.sigmas[i + 1]
    sigma_up = sigma_next * math.sqrt(max(sigma**2 - sigma_next**2, 0)) / sigma
    sigma_down = sigma_next**2 / sigma
    return (X + (sigma_down - sigma) * EPS + sigma_up * NOISE,)


def _ddim(schedule: Schedule, i: int) -> tuple[Row, ...]:
    """Song et al., arXiv 2010.02502, equation 12 with eta 0."""
    alpha_next, sigma_next = schedule.alpha_sigma(i + 1)
    return (alpha_next * _denoised(schedule, i) + sigma_next * EPS,)


def _dpmpp_2m(schedule: Schedule, i: int) -> tuple[Row, ...]:
    """DPM-Solver++ multistep of order 2, midpoint form. Lu et al., arXiv 2211.01095, algorithm 2.

    It is of order 1 on the first step (no history) and on the last (to sigma = 0, where the step in log-SNR
    is infinite). History: S1 = the previous step's denoised latents.
    """
    denoised = _denoised(schedule, i)
    previous = H1
    target = denoised
    if i > schedule.begin and i + 1 < len(schedule.timesteps):
        target = _extrapolated(schedule, i, denoised, previous)
    return _exponential_step(schedule, i, X, target), denoised


def _unipc(schedule: Schedule, i: int) -> tuple[Row, ...]:
    """UniPC of order 2 with B(h) = e^h - 1 ("bh2"), predicting x0. Zhao et al., arXiv 2302.04867.

    Each step first corrects the x that it gets with the eps evaluated there, then predicts the next x.
    History: S1 = the corrected x of the previous step, S2 and S3 = denoised latents one and two steps ago.
    """
    denoised = _denoised(schedule, i)
    corrected = X if i == schedule.begin else _unipc_corrected(schedule, i, denoised)
    target = denoised
    if _unipc_order(schedule, i) == 2:
        target = _extrapolated(schedule, i, denoised, H2)
    return _exponential_step(schedule, i, corrected, target), corrected, denoised, H2


def _unipc_corrected(schedule: Schedule, i: int, denoised: Row) -> Row:
    """x at step i, corrected with the denoised latents there.

    UniC, of the order that the predictor used to get here.
    """
    last_corrected, last_denoised, denoised_before = H1, H2, H3
    change = denoised - last_denoised
    if _unipc_order(schedule, i - 1) == 1:
        return _exponential_step(schedule, i - 1, last_corrected, last_denoised + 0.5 * change)
    h = schedule.log_snr(i) - schedule.log_snr(i - 1)
    r = (schedule.log_snr(i - 2) - schedule.log_snr(i - 1)) / h
    # [[1, 1], [r, 1]] @ [rho_before, rho_now] = b matches the Taylor terms of the exponential integral.
    phi_2 = math.expm1(-h) / -h - 1
    phi_3 = phi_2 / -h - 1 / 2
    b_1, b_2 = phi_2 / math.expm1(-h), 2 * phi_3 / math.expm1(-h)
    rho_before = (b_1 - b_2) / (1 - r)
    rho_now = b_1 - rho_before
    target = last_denoised + rho_before / r * (denoised_before - last_denoised) + rho_now * change
    return _exponential_step(schedule, i - 1, last_corrected, target)


def _unipc_order(schedule: Schedule, i: int) -> int:
    """Order of the predictor at step i.

    It is 1 at the first step, which has no history, and at the last, which goes to sigma = 0.
    """
    return 1 if i in (schedule.begin, len(schedule.timesteps) - 1) else 2


def _lcm(schedule: Schedule, i: int) -> tuple[Row, ...]:
    """Latent consistency: jump to the end, add noise again. Luo et al., arXiv 2310.04378."""
    scaled = schedule.timesteps[i] * LCM_TIMESTEP_SCALING
    c_skip = LCM_SIGMA_DATA**2 / (scaled**2 + LCM_SIGMA_DATA**2)
    c_out = scaled / math.hypot(scaled, LCM_SIGMA_DATA)
    alpha_next, sigma_next = schedule.alpha_sigma(i + 1)
    return (alpha_next * (c_out * _denoised(schedule, i) + c_skip * X) + sigma_next * NOISE,)


def _denoised(schedule: Schedule, i: int) -> Row:
    """The model's x0: x = alpha x0 + sigma eps, solved for x0."""
    alpha, sigma = schedule.alpha_sigma(i)
    denoised: Row = (X - sigma * EPS) / alpha
    return denoised


def _extrapolated(schedule: Schedule, i: int, denoised: Row, previous: Row) -> Row:
    """x0 halfway through step i in log-SNR, on the line through its last two values."""
    h = schedule.log_snr(i + 1) - schedule.log_snr(i)
    h_before = schedule.log_snr(i) - schedule.log_snr(i - 1)
    return denoised + 0.5 * h / h_before * (denoised - previous)


def _exponential_step(schedule: Schedule, i: int, x: Row, denoised: Row) -> Row:
    """x at step i moved to step i + 1, for a constant x0; there the diffusion ODE has this exact solution."""
    _, sigma = schedule.alpha_sigma(i)
    alpha_next, sigma_next = schedule.alpha_sigma(i + 1)
    shrink = math.exp(schedule.log_snr(i) - schedule.log_snr(i + 1))
    return sigma_next / sigma * x + alpha_next * (1 - shrink) * denoised


# --- the table of solvers ---


def _padded(rows: tuple[Row, ...]) -> NDArray[np.float64]:
    """[4, 6]: rows that a solver does not use are zeros."""
    return np.array([*rows, *[NOTHING] * (HISTORY - len(rows))])


@dataclass(frozen=True, slots=True)
class _Solver:
    """A solver's algebra and its schedule.

    `sigma_space`: x = x0 + sigma eps, scaled before the model sees it; otherwise x = alpha x0 + sigma eps.
    """

    rows: Callable[[Schedule, int], tuple[Row, ...]]
    schedule: Callable[[SchedulerConfig, int, int], Schedule]
    sigma_space: bool = False
    needs_noise: bool = False


_SOLVERS: Final[Mapping[str, _Solver]] = {
    "euler": _Solver(_euler, euler_schedule, sigma_space=True),
    "euler_a": _Solver(_euler_ancestral, euler_schedule, sigma_space=True, needs_noise=True),
    "ddim": _Solver(_ddim, ddim_schedule),
    "dpmpp_2m_karras": _Solver(_dpmpp_2m, karras_schedule),
    "unipc": _Solver(_unipc, unipc_schedule),
    "lcm": _Solver(_lcm, lcm_schedule, needs_noise=True),
}
SOLVERS: Final[tuple[str, ...]] = tuple(_SOLVERS)


def _check_request(name: str, steps: int, begin: int, config: SchedulerConfig) -> None:
    """Refuse what diffusers refuses, computes wrongly or clamps silently."""
    most = LCM_ORIGINAL_STEPS if name == "lcm" else config.num_train_timesteps - 1 - config.steps_offset
    if not 1 <= steps <= most:
        raise InvalidRequest("steps", f"{steps} is out of range for {name}", allowed=f"1 to {most}")
    if not 0 <= begin < steps:
        raise ValueError(f"begin={begin} is out of range; with {steps} steps it must be 0 to {steps - 1}")
    # Absent, diffusers clips x0 in DDIM and not in LCM; a clipped x0 is no linear update.
    if (config.clip_sample is True and name == "lcm") or (config.clip_sample is not False and name == "ddim"):
        raise ConfigError(
            f"scheduler config: clip_sample={config.clip_sample!r} clips with {name}; it must be false"
        )
    if name == "ddim" and config.timestep_spacing == "trailing" and config.num_train_timesteps % steps:
        raise InvalidRequest(
            "steps",
            f"{steps} with ddim on a trailing schedule",
            allowed=f"divisors of {config.num_train_timesteps}",
        )
