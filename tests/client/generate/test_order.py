"""What the options ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.errors import InvalidRequest
from intaglio.imaging.images import encode_image
from intaglio_client import Image
from intaglio_client.generate.order import Order, question_of

MADE = {"steps": 3, "timesteps": [9.0, 5.0, 1.0], "eta": 0.5, "width": 64}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture that says how it was made: the second of two."""
    metadata = {**MADE, "prompt": "a fox", "images": [], "controls": [], "loras": []}
    metadata |= {"num_images": 2, "image_index": 1, "output_format": "png"}
    path = tmp_path / "x.png"
    path.write_bytes(encode_image(np.zeros((8, 8, 3), np.uint8), output_format="png", metadata=metadata))
    return path


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"preset": "draft"}, {"preset": "draft", "width": 64, "num_images": 2}),
        ({"preset": "draft", "steps": 4}, {"preset": "draft", "steps": 4, "width": 64, "num_images": 2}),
        ({"steps": 4}, {"steps": 4, "eta": 0.5, "width": 64, "num_images": 2}),
        ({"timesteps": [9.0, 1.0]}, {"timesteps": [9.0, 1.0], "eta": 0.5, "width": 64, "num_images": 2}),
        ({"sigmas": [9.0, 1.0, 0.0]}, {"sigmas": [9.0, 1.0, 0.0], "eta": 0.5, "width": 64, "num_images": 2}),
        (
            {"scheduler": "DPM++ 2M SDE Karras"},
            {"scheduler": "DPM++ 2M SDE Karras", "steps": 3, "eta": 0.5, "width": 64, "num_images": 2},
        ),
        (
            {"schedule": "karras"},
            {"schedule": "karras", "steps": 3, "eta": 0.5, "width": 64, "num_images": 2},
        ),
    ],
)
def test_what_is_given_beside_like_takes_the_place_of_what_it_contradicts(
    given: dict[str, Any], sent: dict[str, Any], picture: Path
) -> None:
    question = question_of(Order(None, {**given, "output_format": "png"}, picture, ()))
    asked = {name: value for name, value in question.parameters.items() if value not in (None, [], ())}
    assert question.prompt == "a fox"
    assert asked == {"preset": "none", **sent, "output_format": "png"}, "nothing else is filled in"
    assert question.count == 2


def test_a_picture_again_is_the_one_of_its_batch(picture: Path) -> None:
    """How it is delivered changes no picture."""
    for how in ({}, {"priority": "batch", "queue_timeout": 3.0}):
        question = question_of(Order(None, {**how, "output_format": "png"}, picture, ()))
        assert question.parameters["num_images"] == 2
        assert how.items() <= question.parameters.items()
        first, second = Image(b"0", {}), Image(b"1", {})
        assert question.picked((first, second)) == (second,)
        assert question.count == 1


def test_an_order_without_a_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^prompt: missing; allowed: a prompt, or --like IMAGE"):
        question_of(Order(None, {}, None, ()))
    with pytest.raises(InvalidRequest, match=r"^image: given without --like"):
        question_of(Order("a fox", {}, None, (Path("x.png"),)))
