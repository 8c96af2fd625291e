"""The keys of a distillation: those of a LoRA, and what it cannot read is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from intaglio_train import ConfigError, LcmConfig, lcm_config_from_yaml, lora_config_from_yaml

Keys = Callable[..., dict[str, Any]]


def write(path: Path, keys: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(keys))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_text_encoders": True}, "train_text_encoders: lcm trains the UNet only; leave it out"),
        ({"min_snr_gamma": 5.0}, "min_snr_gamma weighs errors of a predicted noise, and lcm has none"),
        ({"teacher_guidance": [9.0, 4.0]}, r"teacher_guidance \[9.0, 4.0\]: give the smaller scale first"),
        ({"teacher_guidance": 0.5}, "teacher_guidance"),
        ({"teacher_steps": 0}, "teacher_steps"),
        ({"huber_c": 0.0}, "huber_c"),
        ({"samples": {"prompts": ["a"], "steps": 51}}, "samples.steps"),
        ({"w_min": 3.0, "w_max": 15.0}, r"write teacher_guidance: \[w_min \+ 1, w_max \+ 1\]"),
        ({"timestep_scaling_factor": 10.0}, "it is 10, as solvers have it; leave it out"),
        ({"teacher_guidence": 5.0}, "did you mean teacher_guidance"),
    ],
)
def test_what_a_distillation_cannot_read_is_named(
    keys: Keys, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        lcm_config_from_yaml(write(tmp_path / "run.yaml", keys(**changes)))


def test_one_scale_is_a_range_of_one(keys: Keys) -> None:
    assert LcmConfig.model_validate(keys(teacher_guidance=5.0)).guidance_range == (5.0, 5.0)
    assert LcmConfig.model_validate(keys(teacher_guidance=[4.0, 16.0])).guidance_range == (4.0, 16.0)


def test_samples_are_drawn_as_the_lora_is_used(keys: Keys) -> None:
    samples = LcmConfig.model_validate(keys(samples={"prompts": ["a"]})).samples
    assert samples is not None
    assert (samples.steps, samples.guidance_scale) == (4, 1.0)


def test_diffusers_name_of_the_teachers_steps_is_taken(keys: Keys, tmp_path: Path) -> None:
    path = write(tmp_path / "run.yaml", keys(num_ddim_timesteps=25))
    assert lcm_config_from_yaml(path).teacher_steps == 25


def test_a_lora_has_no_teacher(keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key teacher_steps"):
        lora_config_from_yaml(write(tmp_path / "run.yaml", keys(teacher_steps=25)))
