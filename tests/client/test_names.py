"""Names of other programs mean the same tensors, and never two values."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.contract.schedulers import SCHEDULERS
from intaglio.errors import InvalidRequest, Unavailable
from intaglio_client import Client, Control
from intaglio_client.names import ALIASES, CONTROL_ALIASES
from intaglio_client.parameters import tensors_from_parameters


@pytest.mark.parametrize(
    ("aliases", "own"),
    [
        ({"num_inference_steps": 20}, {"steps": 20}),
        ({"num_images_per_prompt": 2, "n": 2}, {"num_images": 2}),
        ({"batch_size": 2}, {"num_images": 2}),
        ({"cfg_scale": 7.5}, {"guidance_scale": 7.5}),
        ({"cfg": 7.5, "guidance_scale": 7.5}, {"guidance_scale": 7.5}),
        ({"scheduler": "EulerAncestralDiscreteScheduler"}, {"scheduler": "euler_a"}),
        ({"sampler_name": "DPM++ 2M Karras"}, {"scheduler": "dpmpp_2m_karras"}),
        ({"sampler": "uni_pc_bh2", "scheduler": "UniPC"}, {"scheduler": "unipc"}),
        ({"sampler": "DPM++ 2M SDE Karras"}, {"scheduler": "dpmpp_2m_sde", "schedule": "karras"}),
        ({"sampler": "DPM++ 2M", "schedule": "Karras"}, {"scheduler": "dpmpp_2m", "schedule": "karras"}),
        ({"sampler": "DPM++ 2M", "schedule": "Beta"}, {"scheduler": "dpmpp_2m", "schedule": "beta"}),
        ({"sampler": "DPM++ 2M", "schedule": "Automatic"}, {"scheduler": "dpmpp_2m", "schedule": "karras"}),
        (
            {"sampler": "DPM++ 2M", "sigmas": [9.0, 1.0, 0.0]},
            {"scheduler": "dpmpp_2m", "sigmas": [9.0, 1.0, 0.0]},
        ),
        ({"sampler": "Euler", "schedule": "automatic"}, {"scheduler": "euler"}),
        (
            {"sampler": "dpmpp_2m", "schedule": "sgm_uniform"},
            {"scheduler": "dpmpp_2m", "schedule": "trailing"},
        ),
        ({"seed": -1, "cfg": None}, {}),
        ({"seed": np.int64(-1)}, {}),
    ],
)
def test_an_alias_sends_what_the_name_sends(aliases: Any, own: Any) -> None:
    sent, expected = (tensors_from_parameters("a fox", given) for given in (aliases, own))
    assert set(sent) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(sent[name], tensor)


def test_a_name_that_leaves_something_open_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tensors = tensors_from_parameters("a fox", {"scheduler": "uni_pc", "schedule": "simple"})
    assert tensors["scheduler"].tolist() == [b"unipc"]
    assert "uni_pc is unipc here, in its variant bh2" in caplog.text
    assert "schedule simple is trailing here, at the nearest training times" in caplog.text


def test_aliases_of_controls_hold_for_each_of_them() -> None:
    controls = [Control("canny", image=b"x", weight=0.5)]
    given: Any = {"pose": "waving-01", "controls": controls, "control_guidance_end": 0.6}
    tensors = tensors_from_parameters("a fox", given | {"controlnet_conditioning_scale": [0.8, 0.5]})
    entries = json.loads(tensors["controls"][0])
    assert [(entry["weight"], entry["begin"], entry["end"]) for entry in entries] == [
        (0.8, 0.0, 0.6),
        (0.5, 0.0, 0.6),
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"steps": 20, "num_inference_steps": 30}, "^num_inference_steps: 30, but steps is 20"),
        ({"n": 2, "num_images_per_prompt": 3}, "^num_images_per_prompt: 3, but n is 2"),
        ({"scheduler": "euler", "sampler": "Euler a"}, "^sampler: 'Euler a', but scheduler is 'euler'"),
        (
            {"sampler": "DPM++ 2M SDE Karras", "schedule": "beta"},
            "^schedule: 'beta', but scheduler 'DPM.* means the schedule karras; allowed: absent, or",
        ),
        ({"control_guidance_start": 0.1}, "^control_guidance_start: there are no controls"),
        (
            {"pose": "a", "controlnet_conditioning_scale": [1, 1]},
            "^controlnet_conditioning_scale: 2 values for 1",
        ),
        (
            {"controls": [Control("pose", pose="a", weight=0.5)], "controlnet_conditioning_scale": 0.8},
            r"0.8, but controls\[0\].weight is 0.5",
        ),
        ({"step": 20}, r"^step: unknown parameter; did you mean steps\?; allowed: prompt, "),
        ({"num_inference_step": 20}, r"did you mean num_inference_steps\?"),
        ({"strength": 0.5}, "^strength: unknown parameter; allowed: prompt"),
        ({"scheduler": "euler_b"}, r"^scheduler: 'euler_b' is unknown; did you mean euler_a\?"),
    ],
)
def test_what_contradicts_or_is_unknown_is_refused(given: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        tensors_from_parameters("a fox", given)


def test_the_page_has_every_name() -> None:
    page = (Path(__file__).parents[2] / "docs/clients.md").read_text(encoding="utf-8")
    for name in (*ALIASES, *CONTROL_ALIASES, *SCHEDULERS):
        assert f"`{name}`" in page
    for names in SCHEDULERS.values():
        assert f"| {names.a1111} |" in page


def test_a_name_is_noticed_once(caplog: pytest.LogCaptureFixture) -> None:
    with Client("127.0.0.1:9", deadline=1) as client, pytest.raises(Unavailable):
        client.generate("a fox", scheduler="uni_pc")
    assert len([one for one in caplog.messages if "uni_pc" in one]) == 1


def test_generate_makes_one_image_under_every_name() -> None:
    with Client("127.0.0.1:9") as client, pytest.raises(InvalidRequest, match="num_images: 3 from generate"):
        client.generate("a fox", n=3)
