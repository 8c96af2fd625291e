"""scheduler_config.json: what the noise schedule depends on, and a rule for every other key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from intaglio.contract.configuration_rules import (
    REQUIRED,
    Rules,
    check_values,
    only,
    read,
    values_read,
    without,
)
from intaglio.errors import ConfigError

__all__ = ["LCM_ORIGINAL_STEPS", "SCHEDULER_RULES", "SchedulerConfig"]

LCM_ORIGINAL_STEPS: Final = 50
"""Steps that consistency models are distilled on. Luo et al., arXiv 2310.04378."""
_ABOUT_THE_FILE: Final = without("says who wrote the file")
_OTHER_SOLVER: Final = without("is of a solver that intaglio does not have; the request's scheduler decides")
_PLACED: Final = "intaglio's schedules have this value; write it into the file"
_SPACING: Final = "a different one for every scheduler"
"""What an absent timestep_spacing means in diffusers."""
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

_FLAGS: Final = (
    "rescale_betas_zero_snr",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
)
"""Keys for which diffusers takes null as false."""

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
    "prediction_type": only("epsilon", "v_prediction", "sample", why="an SDXL model predicts one of these"),
    "rescale_betas_zero_snr": read(False),
    "num_train_timesteps": read(REQUIRED),
    "beta_start": read(REQUIRED),
    "beta_end": read(REQUIRED),
    "beta_schedule": only("scaled_linear", default="linear", why="SDXL is trained with it"),
    "trained_betas": only(None, why="SDXL is trained with scaled_linear betas"),
    # Where the steps lie.
    "timestep_spacing": only("leading", "trailing", "linspace", default=_SPACING, why=_PLACED),
    "steps_offset": read(REQUIRED),
    "set_alpha_to_one": read(True),
    "interpolation_type": only("linear", why=_PLACED),
    "timestep_type": only("discrete", why=_PLACED),
    "final_sigmas_type": only("zero", why=_PLACED),
    "use_karras_sigmas": read(False),
    "use_exponential_sigmas": read(False),
    "use_beta_sigmas": read(False),
    "use_lu_lambdas": only(False, None, why=_PLACED),
    "sigma_min": only(None, why=_PLACED),
    "sigma_max": only(None, why=_PLACED),
    "lambda_min_clipped": only(-math.inf, why=_PLACED),
    "original_inference_steps": only(LCM_ORIGINAL_STEPS, why=_SOLVER),
    "timestep_scaling": only(10.0, why=_SOLVER),
    "use_flow_sigmas": only(False, None, why=_FLOW),
    "use_dynamic_shifting": only(False, None, why=_FLOW),
    "shift_terminal": only(None, why=_FLOW),
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
    prediction_type: str = "epsilon"
    rescale_betas_zero_snr: bool = False
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False

    @property
    def sigma_spacing(self) -> str | None:
        """The schedule of sigmas that the file asks for; None where it places times.

        diffusers hands it to Euler, Heun, DPM++ and UniPC; its other schedulers take no notice of it.
        """
        chosen = self._sigma_spacings()
        return chosen[0] if chosen else None

    def without_sigma_spacing(self) -> SchedulerConfig:
        """The same file without a schedule of sigmas."""
        return replace(self, use_karras_sigmas=False, use_exponential_sigmas=False, use_beta_sigmas=False)

    def _sigma_spacings(self) -> list[str]:
        asked = {
            "karras": self.use_karras_sigmas,
            "exponential": self.use_exponential_sigmas,
            "beta": self.use_beta_sigmas,
        }
        return [name for name, wanted in asked.items() if wanted]

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> SchedulerConfig:
        """Reads a scheduler_config.json as diffusers' `from_config` would.

        Raises:
            ConfigError: a key is missing, or asks for something these tables do not compute (flow matching,
                other betas, dynamic thresholds, ...); the message names the key, its value and what is
                supported.
        """
        check_values(SCHEDULER_RULES, config, what="scheduler config")
        values = values_read(SCHEDULER_RULES, config)
        flags = {key: bool(values[key]) for key in _FLAGS}
        found = cls(**{key: values[key] for key in cls.__dataclass_fields__} | flags)
        if len(found._sigma_spacings()) > 1:
            asked = ", ".join(f"use_{name}_sigmas" for name in found._sigma_spacings())
            raise ConfigError(f"scheduler config says {asked}; at most one of them may be true")
        return found

    def to_mapping(self) -> dict[str, Any]:
        """A scheduler_config.json with what decides the noise schedule, and nothing else.

        `from_mapping` and diffusers' `from_config` read it.
        """
        values = {key: value for key, value in asdict(self).items() if value is not None}
        return {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear"} | values
