"""Options as parameters of the client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import InvalidRequest
from intaglio_client import Lora
from intaglio_client.generate.stated import parameters_from_options

STATED: dict[str, Any] = {
    "steps": [4, 4],
    "seed": 0,
    "negative_prompt": "",
    "timesteps": "999,749",
    "controlnet_conditioning_scale": [0.5],
    "control_guidance_end": [0.5, 1.0],
    "lora": ["night:0.8"],
}


def test_what_is_stated_is_read_and_what_is_not_is_absent() -> None:
    """0 and an empty text are values. What belongs to the command itself is no parameter."""
    others = {"width": None, "control": [], "scheduler": [], "like": Path("a.png"), "deadline": 3.0}
    given = parameters_from_options({**STATED, **others, "out": Path("fox.jpg")})
    assert given == {
        "steps": 4,
        "seed": 0,
        "negative_prompt": "",
        "timesteps": [999.0, 749.0],
        "controlnet_conditioning_scale": 0.5,
        "control_guidance_end": [0.5, 1.0],
        "loras": [Lora("night", 0.8)],
        "output_format": "jpeg",
    }
    assert parameters_from_options({"out": None}) == {"output_format": "png"}


@pytest.mark.parametrize("options", [{"steps": [3, 4]}, {"timesteps": ""}, {"control": ["image=a"]}])
def test_what_cannot_be_read_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        parameters_from_options(options)
