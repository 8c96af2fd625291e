"""What is sent equals the table, and what is wrong is refused before it is sent, by name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from intaglio.contract.models import DELIVERY, LARGEST_SEED, SDXL
from intaglio.contract.ports import numpy_type, read_tensors
from intaglio.contract.presets import KINDS
from intaglio.errors import InvalidRequest
from intaglio.imaging.images import decode_image
from intaglio_client import Control, Lora, Parameters
from intaglio_client.names import ALIASES, CONTROL_ALIASES, Aliases
from intaglio_client.parameters import parameters_from_metadata, tensors_from_parameters

EVERYTHING: dict[str, Any] = {
    "negative_prompt": "fog",
    "seed": 3,
    "width": 256,
    "height": 256,
    "steps": 20,
    "guidance_scale": 5.0,
    "guidance_rescale": 0.7,
    "guidance_begin": 0.1,
    "guidance_end": 0.7,
    "scheduler": "euler",
    "clip_skip": 1,
    "schedule": "karras",
    "timesteps": (999, 500),
    "sigmas": [9.5, 1.0, 0],
    "sparse_begin": 0.3,
    "sparse_every": 2,
    "eta": 0.5,
    "num_images": 2,
    "output_format": "webp",
    "controls": [
        Control("canny", image=b"bytes", weight=0.5, preprocess="canny", every=3),
        Control("depth", image=b"bytes"),
    ],
    "control_every": 2,
    "loras": [Lora("mara"), ("night", 0.5)],
    "trigger_words": False,
    "preset": "draft",
    "style": "drawing",
    "negative_preset": "by-day",
    "scene": "beach",
    "pose": "waving-01",
    "priority": "batch",
    "queue_timeout": 30,
}
PLACED = ("schedule", "timesteps", "sigmas", "sparse_begin", "sparse_every", "eta")


def test_every_input_of_the_table_can_be_sent_and_the_server_takes_it() -> None:
    tensors = tensors_from_parameters("a fox", Parameters(**EVERYTHING))
    assert set(tensors) == {port.name for port in SDXL.inputs} - {"response_format"}
    assert set(read_tensors(tensors, SDXL.inputs)) == set(tensors), (
        "the runtime's own check of types and shapes"
    )
    assert all(tensors[name].dtype == numpy_type(SDXL.input(name).datatype) for name in tensors)


def test_parameters_are_the_tables_inputs() -> None:
    inputs = {port.name for port in SDXL.inputs} - {"prompt", "images", "response_format"}
    assert set(Parameters.__annotations__) == inputs | {"pose"} | set(Aliases.__annotations__)
    assert set(Aliases.__annotations__) == {*ALIASES, *CONTROL_ALIASES}


def test_what_is_not_given_is_not_sent() -> None:
    assert set(tensors_from_parameters("a fox", {"seed": None, "loras": (), "controls": []})) == {"prompt"}
    assert set(tensors_from_parameters("a fox", {"pose": None, "loras": None, "controls": None})) == {
        "prompt"
    }
    assert tensors_from_parameters("a fox", {"seed": 0})["seed"].tolist() == [0], "zero is a seed"
    assert tensors_from_parameters("a fox", {"negative_prompt": ""})["negative_prompt"].tolist() == [b""], (
        "empty is not absent"
    )


def test_controls_share_images_and_pose_is_a_control(tmp_path: Path) -> None:
    file = tmp_path / "edges.png"
    file.write_bytes(b"bytes")
    controls = [
        Control("canny", image=b"bytes"),
        Control("depth", image=file),
        Control("depth", image=PIL.Image.new("RGB", (2, 2))),
    ]
    tensors = tensors_from_parameters("a fox", {"pose": "waving-01", "controls": controls})
    entries = json.loads(tensors["controls"][0])
    assert [entry.get("image") for entry in entries] == [None, 0, 0, 1]
    assert (entries[0]["type"], entries[0]["pose"]) == ("pose", "waving-01")
    assert tensors["images"][1].startswith(b"\x89PNG")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK", "YCbCr", "HSV", "F"])
def test_pillow_images_of_every_mode_are_sent_as_png(mode: str) -> None:
    tensors = tensors_from_parameters(
        "a fox", {"controls": [Control("depth", image=PIL.Image.new(mode, (8, 8)))]}
    )
    assert decode_image(tensors["images"][0], field="images[0]", most_pixels=64).size == (8, 8)


@pytest.mark.parametrize(
    ("field", "parameters"),
    [
        ("scheduler", {"scheduler": "dpm++"}),
        ("steps", {"steps": 2**40}),
        ("steps", {"steps": 20.0}),
        ("steps", {"steps": True}),
        ("guidance_scale", {"guidance_scale": float("nan")}),
        ("guidance_scale", {"guidance_scale": float("inf")}),
        ("seed", {"seed": -2}),
        ("response_format", {"response_format": "b64"}),
        ("seed", {"seed": LARGEST_SEED + 1}),
        ("num_images", {"num_images": 2**40}),
        ("output_format", {"output_format": "gif"}),
        ("negative_prompt", {"negative_prompt": 3}),
        ("negative_prompt", {"negative_prompt": "\ud800"}),
        ("colour", {"colour": "red"}),
        ("controls[0]", {"controls": [Control("pose")]}),
        ("controls[0]", {"controls": [Control("pose", image=b"x", pose="waving-01")]}),
        ("controls[0].type", {"controls": [Control("../pose", pose="waving-01")]}),
        ("controls[1].pose", {"pose": "waving-01", "controls": [Control("pose", pose="A B")]}),
        ("controls[0].weight", {"controls": [Control("pose", pose="waving-01", weight=3)]}),
        ("controls[0].every", {"controls": [Control("pose", pose="waving-01", every=0)]}),
        ("control_every", {"control_every": 0}),
        ("control_every", {"control_every": 151}),
        ("controls[0].image", {"controls": [Control("canny", image=Path("no/such/file.png"))]}),
        ("loras[0].id", {"loras": [Lora("../mara")]}),
        ("loras[1].weight", {"loras": [Lora("mara"), Lora("mara", float("nan"))]}),
    ],
)
def test_what_is_wrong_is_named(field: str, parameters: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        tensors_from_parameters("a fox", parameters)
    assert refused.value.field == field
    assert "\n" not in str(refused.value)
    assert refused.value.allowed


def test_metadata_gives_back_the_request() -> None:
    sent = tensors_from_parameters("a fox", Parameters(**EVERYTHING))
    metadata = {
        **{
            key: EVERYTHING.get(key)
            for key in ("negative_prompt", "seed", "width", "height", "steps", "guidance_scale")
        },
        **{
            key: EVERYTHING[key]
            for key in (
                "guidance_begin",
                "guidance_end",
                "scheduler",
                "num_images",
                "output_format",
                "control_every",
                "guidance_rescale",
                "clip_skip",
                *PLACED,
            )
        },
        "prompt": "a fox",
        "images": [hashlib.sha256(b"bytes").hexdigest()],
        "controls": json.loads(sent["controls"][0]),
        "loras": [{"id": "mara", "weight": 1.0}],
        "trigger_words": False,
    }
    prompt, parameters = parameters_from_metadata(metadata, [b"bytes"])
    older = {name: value for name, value in metadata.items() if name != "control_every"}
    assert "control_every" not in parameters_from_metadata(older, [b"bytes"])[1], "the writer had none"
    again = tensors_from_parameters(prompt, parameters)
    left_out = {*KINDS, *DELIVERY}
    assert set(again) == set(sent) - left_out | {"preset"}, "the values hold what presets became"
    assert again["preset"].tolist() == [b"none"], "so nothing is filled in"
    for name in set(sent) - {"loras", *left_out}:
        np.testing.assert_array_equal(again[name], sent[name], err_msg=name)
    tagged = {"prompt": r"a fox <lora:dusk> \<lora:x>", "loras": [{"id": "night", "weight": 0.5}]}
    prompt, parameters = parameters_from_metadata(metadata | tagged, [b"bytes"])
    assert prompt == r"a fox  \<lora:x>", "`loras` says what the preset dusk was"
    assert parameters["loras"] == [Lora("night", 0.5)]
    with pytest.raises(InvalidRequest, match="images: 1 control image"):
        parameters_from_metadata(metadata)
    for damaged in (
        {"prompt": "a fox"},
        metadata | {"controls": ["x"]},
        metadata | {"loras": ["x"]},
        metadata | {"prompt": 3},
        metadata | {"controls": [{"image": "0"}]},
        metadata | {"images": [["x"]]},
    ):
        with pytest.raises(InvalidRequest, match="metadata"):
            parameters_from_metadata(damaged, [b"bytes"])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"loras": "night"}, r"^loras: 'night'; allowed: a list of Lora\(id, weight\)"),
        ({"loras": Lora("night")}, r"^loras: Lora\(id='night'.*; allowed: a list of Lora"),
        ({"loras": {"night": 0.5}}, r"^loras: \{'night': 0.5\}; allowed: a list of Lora"),
        ({"loras": ["ab"]}, r"^loras\[0\]: 'ab'; allowed: Lora\(id, weight\)"),
        ({"controls": Control("pose", pose="a")}, r"^controls: Control\(.*; allowed: a list of Control"),
        ({"controls": ["pose"]}, r"^controls\[0\]: 'pose'; allowed: a list of Control"),
    ],
)
def test_lists_are_lists(given: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        tensors_from_parameters("a fox", given)


@pytest.mark.parametrize("name", ["num_images", "steps", "width", "height"])
def test_what_a_deployment_limits_is_left_to_the_server(name: str) -> None:
    """The client cannot know the deployment's range, so it names none."""
    for value in (0, 100, 5000):
        assert tensors_from_parameters("a fox", {name: value})[name].tolist() == [value]  # type: ignore[misc]
    with pytest.raises(InvalidRequest) as refused:
        tensors_from_parameters("a fox", {name: 2**40})  # type: ignore[misc]
    assert " to " not in refused.value.allowed
