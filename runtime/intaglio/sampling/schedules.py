"""Where the steps of a trajectory lie: timesteps and sigmas, as diffusers' schedulers place them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.configuration_rules import (
    REQUIRED,
    Rules,
    check_values,
    only,
    read,
    values_read,
    without,
)

__all__ = ["SCHEDULER_RULES", "SchedulerConfig"]

KARRAS_RHO: Final = 7.0
"""Exponent of the noise levels of Karras et al., arXiv 2206.00364, equation 5."""


LCM_ORIGINAL_STEPS: Final = 50
"""Steps that consistency models are distilled on. Luo et al., arXiv 2310.04378."""


_ABOUT_THE_FILE: Final = without("says who wrote the file")
_OTHER_SOLVER: Final = without("is of a solver that intaglio does not have; the request's scheduler decides")
_DECIDED: Final = (
    "a request's `scheduler` decides how steps are placed; write the supported value into the file"
)
_DYNAMIC: Final = "intaglio does not clip by percentile"
_FLOW: Final = "this is a flow-matching model, which SDXL is not"
_EDM: Final = "this checkpoint predicts as EDM does (Playground v2.5), which intaglio does not compute"
_SOLVER: Final = "intaglio's solvers have these values; write the supported value into the file"
_SUPPORTED_CLASSES: Final = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
"""Classes whose configuration diffusers' `from_config` hands to any of intaglio's solvers."""

SCHEDULER_RULES: Final[Rules] = {
    "_class_name": only(
        *_SUPPORTED_CLASSES, why="other schedulers are of other models; take an SDXL checkpoint"
    ),
    "_diffusers_version": _ABOUT_THE_FILE,
    "_use_default_values": _ABOUT_THE_FILE,
    # What the network predicts, and at which noise levels it was trained.
    "sigma_data": only(None, why=_EDM),
    "sigma_schedule": only(None, why=_EDM),
    "rho": only(None, why=_EDM),
    "prediction_type": only(
        "epsilon", why="v-prediction and others are not supported; take an epsilon checkpoint"
    ),
    "rescale_betas_zero_snr": only(
        False, None, why="zero terminal SNR is not supported; take another checkpoint"
    ),
    "num_train_timesteps": read(REQUIRED),
    "beta_start": read(REQUIRED),
    "beta_end": read(REQUIRED),
    "beta_schedule": only("scaled_linear", default="linear", why="SDXL is trained with it"),
    "trained_betas": only(None, why="SDXL is trained with scaled_linear betas"),
    # Where the steps lie.
    "timestep_spacing": only("leading", "trailing", default="linspace", why=_DECIDED),
    "steps_offset": read(REQUIRED),
    "set_alpha_to_one": read(True),
    "interpolation_type": only("linear", why=_DECIDED),
    "timestep_type": only("discrete", why=_DECIDED),
    "final_sigmas_type": only("zero", why=_DECIDED),
    "use_karras_sigmas": only(False, None, why=f"{_DECIDED}, and ask for dpmpp_2m_karras"),
    "use_exponential_sigmas": only(False, None, why=_DECIDED),
    "use_beta_sigmas": only(False, None, why=_DECIDED),
    "use_lu_lambdas": only(False, None, why=_DECIDED),
    "sigma_min": only(None, why=_DECIDED),
    "sigma_max": only(None, why=_DECIDED),
    "lambda_min_clipped": only(-math.inf, why=_DECIDED),
    "original_inference_steps": only(LCM_ORIGINAL_STEPS, why=_SOLVER),
    "timestep_scaling": only(10.0, why=_SOLVER),
    "use_flow_sigmas": only(False, None, why=_FLOW),
    "use_dynamic_shifting": only(False, None, why=_FLOW),
    "flow_shift": without("is read with use_flow_sigmas only"),
    "time_shift_type": without("is read with use_dynamic_shifting only"),
    # What a step computes.
    "clip_sample": read(None),
    "clip_sample_range": without("is read where clip_sample clips, which is refused"),
    "thresholding": only(False, None, why=_DYNAMIC),
    "dynamic_thresholding_ratio": without("is read with thresholding only"),
    "sample_max_value": without("is read with thresholding only"),
    "variance_type": only(
        None,
        "fixed_small",
        "fixed_small_log",
        "fixed_large",
        "fixed_large_log",
        why="this network predicts its variance too, which SDXL's does not",
    ),
    "algorithm_type": only("dpmsolver++", "deis", "data_prediction", why=_SOLVER),
    "solver_type": only("midpoint", "bh2", "logrho", why=_SOLVER),
    "solver_order": only(2, why=_SOLVER),
    "lower_order_final": only(True, why=_SOLVER),
    "euler_at_final": only(False, why=_SOLVER),
    "predict_x0": only(True, why=_SOLVER),
    "disable_corrector": only([], (), why=_SOLVER),
    "solver_p": only(None, [None, None], why=_SOLVER),
    "skip_prk_steps": _OTHER_SOLVER,
    "predictor_order": _OTHER_SOLVER,
    "corrector_order": _OTHER_SOLVER,
    "tau_func": _OTHER_SOLVER,
    "noise_sampler_seed": _OTHER_SOLVER,
}
"""Rules of scheduler_config.json. diffusers' `from_config` hands every key to the scheduler that a user swaps
in, so a key counts if the class of any of intaglio's solvers takes it.
"""


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """The part of diffusers' scheduler_config.json that the noise schedule depends on; the defaults are SDXL
    base's.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    timestep_spacing: str = "leading"
    steps_offset: int = 1
    set_alpha_to_one: bool = False
    clip_sample: bool | None = False

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> SchedulerConfig:
        """Reads a scheduler_config.json as diffusers' `from_config` would.

        Raises:
            ConfigError: a key is missing, or asks for something these tables do not compute (v-prediction,
                other betas, dynamic thresholds, ...); the message names the key, its value and what is
                supported.
        """
        check_values(SCHEDULER_RULES, config, what="scheduler config")
        values = values_read(SCHEDULER_RULES, config)
        return cls(**{key: values[key] for key in cls.__dataclass_fields__})

    def to_mapping(self) -> dict[str, Any]:
        """A scheduler_config.json with what decides the noise schedule, and nothing else.

        `from_mapping` and diffusers' `from_config` read it.
        """
        values = {key: value for key, value in asdict(self).items() if value is not None}
        fixed = {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear"}
        return fixed | {"prediction_type": "epsilon"} | values


@dataclass(frozen=True, slots=True)
class Schedule:
    """Where a solver goes: model times and noise levels, highest first.

    `timesteps` is [n]; `sigmas` [n + 1] are noise-to-signal ratios, the last one where the trajectory ends:
    0, or what DDIM's final alpha makes of it. `begin` is the first step taken.
    """

    timesteps: NDArray[np.float64]
    sigmas: NDArray[np.float64]
    begin: int

    def alpha_sigma(self, i: int) -> tuple[float, float]:
        """Variance-preserving signal and noise levels at step i: alpha^2 + sigma^2 = 1."""
        alpha = 1 / math.sqrt(self.sigmas[i] ** 2 + 1)
        return alpha, float(self.sigmas[i]) * alpha

    def log_snr(self, i: int) -> float:
        """Half the log signal-to-noise ratio, lambda in the DPM-Solver papers; infinite at the end."""
        return -math.log(self.sigmas[i]) if self.sigmas[i] > 0 else math.inf


def euler_schedule(config: SchedulerConfig, steps: int, begin: int) -> Schedule:
    """`steps` times over the training times; sigma 0 after the last."""
    times = _spaced_times(config, steps, steps)
    return _schedule_at(config, times, _training_sigmas(config)[times], begin)


def ddim_schedule(config: SchedulerConfig, steps: int, begin: int) -> Schedule:
    """As Euler's, but each step goes to the time `num_train_timesteps // steps` earlier, and past the first
    to alpha_0.
    """
    times = _spaced_times(config, steps, steps)
    sigmas = _training_sigmas(config)
    after = times[-1] - config.num_train_timesteps // steps
    end = float(sigmas[max(after, 0)]) if after >= 0 or not config.set_alpha_to_one else 0.0
    return Schedule(times.astype(np.float64), np.append(sigmas[times], end), begin)


def unipc_schedule(config: SchedulerConfig, steps: int, begin: int) -> Schedule:
    """Leading spacing as for one step more, so that the largest time is close to the last training time."""
    times = _spaced_times(config, steps, steps + 1)
    return _schedule_at(config, times, _training_sigmas(config)[times], begin)


def karras_schedule(config: SchedulerConfig, steps: int, begin: int) -> Schedule:
    """Noise levels of arXiv 2206.00364, equation 5, over the whole training range; times are the nearest
    training times.
    """
    training = _training_sigmas(config)
    first, last = float(training[-1]) ** (1 / KARRAS_RHO), float(training[0]) ** (1 / KARRAS_RHO)
    sigmas = (first + np.linspace(0, 1, steps) * (last - first)) ** KARRAS_RHO
    times = np.interp(np.log(sigmas), np.log(training), np.arange(len(training))).round()
    return _schedule_at(config, times, sigmas, begin)


def lcm_schedule(config: SchedulerConfig, steps: int, begin: int) -> Schedule:
    """`steps` of the 50 times that consistency models are distilled on, evenly by index."""
    distilled = np.arange(LCM_ORIGINAL_STEPS, 0, -1) * (config.num_train_timesteps // LCM_ORIGINAL_STEPS) - 1
    times = distilled[np.floor(np.linspace(0, LCM_ORIGINAL_STEPS, steps, endpoint=False)).astype(np.int64)]
    return _schedule_at(config, times, _training_sigmas(config)[times], begin)


def _schedule_at(config: SchedulerConfig, times: NDArray[Any], sigmas: NDArray[Any], begin: int) -> Schedule:
    """Schedule with sigma 0 after the last step; the levels are float32 as diffusers keeps them."""
    return Schedule(
        times.astype(np.float64), np.append(sigmas, 0).astype(np.float32).astype(np.float64), begin
    )


def _spaced_times(config: SchedulerConfig, steps: int, divisions: int) -> NDArray[np.int64]:
    """`steps` integer training times, latest first. Lin et al., arXiv 2305.08891, table 2."""
    if config.timestep_spacing == "trailing":
        ends = np.round(config.num_train_timesteps - np.arange(steps) * (config.num_train_timesteps / steps))
        trailing: NDArray[np.int64] = ends.astype(np.int64) - 1
        return trailing
    index = np.arange(divisions - 1, divisions - 1 - steps, -1, dtype=np.int64)
    times: NDArray[np.int64] = index * (config.num_train_timesteps // divisions) + config.steps_offset
    return times


def _training_sigmas(config: SchedulerConfig) -> NDArray[np.float32]:
    """[num_train_timesteps] noise-to-signal ratios of the scaled-linear betas, increasing.

    Rounded to float32 where torch rounds: 1 - alpha_0 is 8.5e-4, so a float64 schedule would differ by 4e-5
    at the last step.
    """
    start, end = np.float32(math.sqrt(config.beta_start)), np.float32(math.sqrt(config.beta_end))
    stride = (end - start) / np.float32(config.num_train_timesteps - 1)
    index = np.arange(config.num_train_timesteps, dtype=np.float32)
    # torch.linspace counts from the nearer end.
    roots = np.where(
        index < config.num_train_timesteps // 2, start + stride * index, end - stride * index[::-1]
    )
    alphas = np.float32(1) - roots * roots
    products: NDArray[np.float32] = np.cumprod(alphas, dtype=np.float64).astype(np.float32)
    sigmas: NDArray[np.float32] = np.sqrt((np.float32(1) - products) / products)
    return sigmas
