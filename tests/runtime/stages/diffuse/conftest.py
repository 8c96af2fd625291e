"""The stage over the tiny pipeline, and the tensors of one request for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from intaglio.engines.interface import Array
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess

from .inputs import CONTROLS, for_diffuse


@pytest.fixture
def backend(tiny: Any) -> Any:
    return tiny.backend


@pytest.fixture
def diffuse(tiny: Any, backend: Any) -> Iterator[Diffuse]:
    with Diffuse(tiny.manifest, tiny.folder, backend=backend) as stage:
        yield stage


@pytest.fixture(scope="module")
def preprocess(tiny: Any) -> Iterator[Preprocess]:
    with Preprocess(tiny.manifest, tiny.folder) as stage:
        yield stage


@pytest.fixture
def tensors_of(preprocess: Preprocess, request_tensors: Any) -> Callable[..., dict[str, Array]]:
    """A request's parameters -> the tensors that diffuse gets of it."""

    def made(**values: Any) -> dict[str, Array]:
        return for_diffuse(preprocess(request_tensors(**values)))

    return made


@pytest.fixture
def arrays(tensors_of: Callable[..., dict[str, Array]]) -> dict[str, Array]:
    """A stochastic solver and two controls: everything a slice must carry over."""
    return tensors_of(prompt="a fox", seed=1, steps=5, scheduler="euler_a", controls=CONTROLS)
