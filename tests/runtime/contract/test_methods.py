"""The table of few-step methods: every setting is one that a request can state."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from intaglio.contract.lora_registry import LoraMethod
from intaglio.contract.methods import METHOD_NAMES, METHODS
from intaglio.contract.presets import check_setting


def test_every_name_has_its_settings() -> None:
    assert tuple(METHODS) == METHOD_NAMES


@pytest.mark.parametrize("name", METHODS)
def test_a_method_states_its_trajectory_and_agrees_with_itself(name: str) -> None:
    method = METHODS[name]
    assert ("steps" in method.values) != ("timesteps" in method.values)
    assert {"scheduler", "guidance_scale"} <= set(method.values)
    assert set(method.ranges) | set(method.choices) <= set(method.values)
    assert all(method.admits(one, value) for one, value in method.values.items())
    assert "arXiv" in method.source


@pytest.mark.parametrize("name", METHODS)
def test_a_request_can_state_every_setting(name: str) -> None:
    method = METHODS[name]
    for one, value in method.values.items():
        check_setting(one, value)
    for one, range_ in method.ranges.items():
        for value in range_:
            check_setting(one, value if isinstance(method.values[one], float) else int(value))
    for one, choices in method.choices.items():
        for choice in choices:
            check_setting(one, choice)


@pytest.mark.parametrize(
    ("name", "setting", "value", "agrees"),
    [
        ("lcm", "steps", 8, True),
        ("lcm", "steps", 9, False),
        ("lcm", "guidance_scale", 2.0, True),
        ("lcm", "guidance_scale", 5.0, False),
        ("hyper-sd-8-cfg", "guidance_scale", 7.5, True),
        ("hyper-sd-8-cfg", "guidance_scale", 0.0, False),
        ("hyper-sd-4", "scheduler", "tcd", True),
        ("hyper-sd-4", "scheduler", "euler", False),
        ("lightning-4", "guidance_scale", 1.0, True),
        ("lightning-4", "steps", 8, False),
        ("dmd2", "timesteps", [999, 749, 499, 249], True),
        ("dmd2", "timesteps", [999, 749], False),
        ("pcm-4-cfg", "guidance_scale", 7.5, True),
    ],
)
def test_what_agrees_with_a_method(name: str, setting: str, value: Any, agrees: bool) -> None:
    assert METHODS[name].admits(setting, value) == agrees


def test_what_is_allowed_is_said_in_words() -> None:
    assert METHODS["lcm"].allowed("steps") == "4 to 8"
    assert METHODS["hyper-sd-4"].allowed("scheduler") == "ddim or tcd"
    assert METHODS["dmd2"].allowed("timesteps") == "999, 749, 499, 249"


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.is_base])
def test_no_lora_has_the_method_of_a_checkpoint(name: str) -> None:
    with pytest.raises(ValidationError, match="is published as a checkpoint only"):
        TypeAdapter(LoraMethod).validate_python(name)
