"""scheduler_config.json: every key of diffusers' schedulers is used, has no effect, or is refused by name."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest

from intaglio.errors import ConfigError
from intaglio.sampling.scheduler_config import SCHEDULER_RULES, SchedulerConfig
from intaglio.sampling.solvers import SOLVERS, solver_table
from intaglio.sampling.trajectory import Trajectory

from ...parity import SDXL_SCHEDULER, scheduler_for
from .trajectories import largest_error

CLASSES = SCHEDULER_RULES["_class_name"].allowed
OTHER_VALUES: dict[str, Any] = {
    "num_train_timesteps": 500,
    "beta_start": 0.001,
    "beta_end": 0.02,
    "steps_offset": 0,
    "set_alpha_to_one": True,
    "clip_sample": True,
    "rescale_betas_zero_snr": True,
    "use_karras_sigmas": True,
    "use_exponential_sigmas": True,
    "use_beta_sigmas": True,
}
"""Another value of each key that intaglio reads."""
UNUSED_VALUES: dict[str, Any] = {
    "flow_shift": 3.0,
    "time_shift_type": "linear",
    "clip_sample_range": 2.0,
    "dynamic_thresholding_ratio": 0.5,
    "sample_max_value": 1.5,
}
"""Another value of each key that a solver's class takes and that has no effect."""
EDM = {
    "_class_name": "EDMDPMSolverMultistepScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rho": 7.0,
    "sigma_data": 0.5,
    "sigma_max": 80.0,
    "sigma_min": 0.002,
    "sigma_schedule": "karras",
    "solver_order": 2,
}
"""Playground v2.5."""
WITHOUT_SPACING = {key: value for key, value in SDXL_SCHEDULER.items() if key != "timestep_spacing"}
NOOBAI_V = SDXL_SCHEDULER | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}

WITHOUT_BETAS = {key: value for key, value in SDXL_SCHEDULER.items() if key != "beta_schedule"}


def test_default_config_is_sdxl() -> None:
    assert SchedulerConfig.from_mapping(SDXL_SCHEDULER) == SchedulerConfig()


def parameters(name: str) -> dict[str, inspect.Parameter]:
    scheduler = getattr(diffusers, name)
    original = inspect.signature(scheduler.__init__).parameters
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {key: one for key, one in original.items() if key != "self" and one.kind not in kinds}


@pytest.mark.parametrize("name", CLASSES)
def test_every_key_of_diffusers_has_a_rule(name: str) -> None:
    assert set(parameters(name)) <= set(SCHEDULER_RULES)


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_the_classes_of_our_solvers_assume_is_computed(solver: str) -> None:
    """The default of a class holds where the file does not say the key."""
    for key, one in parameters(type(scheduler_for(solver, SDXL_SCHEDULER)).__name__).items():
        rule = SCHEDULER_RULES[key]
        if key not in SDXL_SCHEDULER and key not in ("beta_schedule", "timestep_spacing"):
            assert rule.kind != "only" or rule.allows(one.default), key


ONLY = sorted(key for key, rule in SCHEDULER_RULES.items() if rule.kind == "only")


@pytest.mark.parametrize("key", ONLY)
def test_every_other_value_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"says {key}: 'something else'; supported is .*: "):
        SchedulerConfig.from_mapping(SDXL_SCHEDULER | {key: "something else"})


READ = sorted(key for key, rule in SCHEDULER_RULES.items() if rule.kind == "read")


@pytest.mark.parametrize("key", READ)
def test_every_key_that_is_read_matters(key: str) -> None:
    changed = SDXL_SCHEDULER | {key: OTHER_VALUES[key]}
    assert SchedulerConfig.from_mapping(changed) != SchedulerConfig.from_mapping(SDXL_SCHEDULER)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("key", UNUSED_VALUES)
def test_what_has_no_effect_has_none_in_diffusers(solver: str, key: str) -> None:
    assert SCHEDULER_RULES[key].kind == "without effect"
    changed = SDXL_SCHEDULER | {key: UNUSED_VALUES[key]}
    assert largest_error(Trajectory(scheduler=solver, steps=4), config=changed) < 1e-4


def test_every_key_without_effect_that_a_solver_takes_was_tried() -> None:
    taken = {
        key for name in SOLVERS for key in parameters(type(scheduler_for(name, SDXL_SCHEDULER)).__name__)
    }
    assert {key for key in taken if SCHEDULER_RULES[key].kind == "without effect"} == set(UNUSED_VALUES)


@pytest.mark.parametrize("name", CLASSES)
def test_files_of_other_solvers_are_read(name: str) -> None:
    """The file that diffusers saves after a user swapped the scheduler."""
    if name in ("DPMSolverSDEScheduler", "LMSDiscreteScheduler"):
        pytest.skip("needs a library that is not installed")
    saved = dict(getattr(diffusers, name).from_config(SDXL_SCHEDULER).config)
    if name == "DPMSolverSinglestepScheduler":
        saved["lower_order_final"] = True  # its own default is another
    assert SchedulerConfig.from_mapping(saved) == SchedulerConfig()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EDM, "_class_name: 'EDMDPMSolverMultistepScheduler'"),
        (EDM | {"_class_name": "EulerDiscreteScheduler"}, "sigma_data: 0.5; .*Playground"),
        (SDXL_SCHEDULER | {"prediction_type": "flow"}, "prediction_type: 'flow'; supported is 'epsilon' or"),
        (SDXL_SCHEDULER | {"shift": 3.0}, "shift: 3.0, which intaglio does not know"),
        (
            SDXL_SCHEDULER | {"use_karras_sigmas": True, "use_beta_sigmas": True},
            "use_karras_sigmas, use_beta_sigmas; at most one",
        ),
        (WITHOUT_SPACING, "no timestep_spacing, which means 'a different one for every scheduler'"),
        (SDXL_SCHEDULER | {"beta_end": None}, "has no beta_end"),
        (WITHOUT_BETAS, "no beta_schedule, which means 'linear'"),
    ],
)
def test_known_checkpoints_are_refused_by_name(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        solver_table(Trajectory(scheduler="euler", steps=20), scheduler_config=config)


def test_what_a_manifest_holds_is_the_same_schedule() -> None:
    """JSON has no infinity, so what has no effect stays out of the manifest."""
    config = NOOBAI_V | {"lambda_min_clipped": float("-inf"), "set_alpha_to_one": True}
    config |= {"use_karras_sigmas": True, "timestep_spacing": "linspace"}
    found = SchedulerConfig.from_mapping(config)
    assert SchedulerConfig.from_mapping(found.to_mapping()) == found
    assert "lambda_min_clipped" not in found.to_mapping()
