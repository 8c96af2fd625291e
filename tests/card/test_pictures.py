"""Pictures through the server against the CPU's, and what the server takes of the card."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest

from intaglio.serving.server import Server
from intaglio_client import Client
from intaglio_client.demo import PROMPT

from .asked import PICTURES, SOLVERS, request_of
from .conftest import decibels


@pytest.mark.card("a card, TensorRT-RTX and Triton: the miniature served")
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_draws_the_cpus_picture(client: Client, record: Callable[..., None], solver: str) -> None:
    image = client.generate(PROMPT, **request_of(solver))
    apart = decibels(image.pixels, np.asarray(PIL.Image.open(PICTURES / f"{solver}.png")))
    record(**{f"decibels_{solver}": round(apart, 1), f"seconds_{solver}": image.timings["request"]})
    assert apart >= 30


@pytest.mark.card("a card, TensorRT-RTX and Triton: the memory of the served miniature", only=True)
def test_memory_is_reported_beside_its_prediction(
    server: Server, client: Client, record: Callable[..., None]
) -> None:
    client.generate(PROMPT, **request_of("euler"))
    record(memory=server.memory_report)
    assert "of the card; predicted" in server.memory_report
