"""Pictures through the server against the CPU's."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest

from intaglio_client import Client
from intaglio_client.demo import PROMPT

from .asked import JUDGED, PICTURES, SOLVERS, request_of
from .conftest import decibels
from .judged import judge_served


@pytest.mark.card("a card, TensorRT-RTX and Triton: the miniature served")
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_draws_the_cpus_picture(client: Client, record: Callable[..., None], solver: str) -> None:
    image = client.generate(PROMPT, **request_of(solver))
    apart = decibels(image.pixels, np.asarray(PIL.Image.open(PICTURES / f"{solver}.png")))
    record(**{f"decibels_{solver}": round(apart, 1), f"seconds_{solver}": image.timings["request"]})
    assert apart >= 30


@pytest.mark.card("a card, TensorRT-RTX and Triton: 84 pictures of the miniature, judged by its rules")
def test_prompts_and_poses_are_followed_as_on_the_cpu(client: Client, record: Callable[..., None]) -> None:
    expected = json.loads(JUDGED.read_text())
    found = judge_served(client)
    record(judged=found)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(found[name] - value) <= 0.03, (name, found[name], value)
