"""What has no effect is said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from intaglio.request.read import read_request


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        ({"steps": 4, "guidance_begin": 0.1, "guidance_end": 0.3}, True),
        ({"steps": 4, "guidance_begin": 0.1, "guidance_end": 0.5}, False),
        ({"steps": 4, "guidance_begin": 0.1, "guidance_end": 0.3, "guidance_scale": 1.0}, False),
    ],
)
def test_a_window_of_guidance_without_a_step(
    tiny: Any, request_tensors: Any, values: Any, warned: bool
) -> None:
    expected = (
        "guidance_begin: the window 0.1 to 0.3 holds no whole step of 4, so guidance takes part in none"
    )
    request = read_request(request_tensors(prompt="a", **values), tiny.manifest)
    assert request.warnings == ((expected,) if warned else ())


@pytest.mark.parametrize(("steps", "warned"), [(4, True), (5, False)])
def test_a_window_of_a_control_without_a_step(
    tiny: Any, request_tensors: Any, steps: int, warned: bool
) -> None:
    controls = json.dumps([{"type": "pose", "pose": "waving-01", "end": 0.2}])
    expected = "controls[0]: the window 0 to 0.2 holds no whole step of 4, so the control takes part in none"
    tensors = request_tensors(prompt="a", controls=controls, steps=steps)
    assert read_request(tensors, tiny.manifest).warnings == ((expected,) if warned else ())
