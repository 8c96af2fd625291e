"""A setting's name, and what is wrong with its inputs."""

from __future__ import annotations

from typing import Any

import pytest

from intaglio_client.tune.settings import named_setting, stated_inputs, wrong_input


@pytest.mark.parametrize(
    ("inputs", "name"),
    [
        ({"scheduler": "euler", "steps": 30}, "euler 30"),
        ({"steps": 12, "guidance_end": 0.8, "scheduler": "unipc"}, "unipc 12, guidance_end 0.8"),
        ({"loras": [{"id": "lcm"}]}, "lora lcm"),
    ],
)
def test_the_inputs_name_a_setting(inputs: dict[str, Any], name: str) -> None:
    assert named_setting(inputs).name == name


def test_a_name_becomes_part_of_a_files_name() -> None:
    assert named_setting({}, name="Ünser / a:b, 3").file_name == "nser-a-b-3"


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"sheduler": "euler"}, "sheduler: no input that a quality preset may set; did you mean scheduler?"),
        ({"steps": 0.5}, "steps: float"),
        ({"steps": 1000}, "steps: 1000 is out of range"),
        ({"scheduler": "eular"}, "scheduler: 'eular' is unknown; did you mean euler?"),
        ({"guidance_end": 2}, "guidance_end: 2 is out of range; allowed: 0 to 1"),
        ({"seed": 3}, "seed: no input that a quality preset may set"),
        ({"loras": ["night"]}, "loras: ['night']; allowed: a list of {id: ID, weight: NUMBER}"),
        ({"control_guidance_end": "0.6"}, "control_guidance_end: '0.6'; allowed: a number"),
    ],
)
def test_a_wrong_input_is_named(inputs: dict[str, Any], problem: str) -> None:
    found = wrong_input(inputs)
    assert found is not None
    assert found.startswith(problem)


def test_inputs_of_the_table_and_windows_of_controls_are_right() -> None:
    inputs = {"steps": 12, "scheduler": "unipc", "guidance_end": 0.8, "control_every": 2}
    assert wrong_input({**inputs, "control_guidance_end": 0.6, "loras": [{"id": "night"}]}) is None


def test_a_request_states_fixed_defaults_so_that_a_deployments_own_do_not_count() -> None:
    stated = stated_inputs(named_setting({"steps": 12, "guidance_end": 0.8}))
    assert (stated["guidance_begin"], stated["control_every"]) == (0.0, 1)
    assert stated["guidance_end"] == 0.8
    assert "scheduler" not in stated
    assert "num_images" not in stated
    lora = {"loras": [{"id": "lcm"}]}
    assert stated_inputs(named_setting(lora)) == lora


@pytest.mark.parametrize(
    ("inputs", "steps"),
    [
        ({"steps": 12}, 12),
        ({"sigmas": [14.6, 3.0, 0.05, 0.0]}, 3),
        ({"timesteps": [999, 500]}, 2),
        ({"loras": [{"id": "fast"}]}, 8),
    ],
)
def test_steps_move_the_bar_however_they_are_stated(inputs: dict[str, Any], steps: float) -> None:
    assert named_setting(inputs).weight == steps
