"""ControlNets that take turns in the memory of two, in the engines of this machine, without Triton."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from intaglio.builds.manifest import BuildManifest, read_manifest
from intaglio.contract.config import Deployment
from intaglio.engines.card import read_card_memory
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess
from intaglio_client import Control
from intaglio_client.parameters import tensors_from_parameters

from .conftest import PROMPT

_REQUESTS = 24
_LEAK_MIB = 32
"""What the driver may count differently from one moment to the next."""


def with_places(manifest: BuildManifest, places: int) -> BuildManifest:
    execution = manifest.execution.model_copy(update={"resident_controlnets": places})
    return manifest.model_copy(update={"execution": execution})


def drawn(preprocess: Preprocess, diffuse: Diffuse, *controls: str) -> Any:
    """A picture of 256x256 with two steps; every control has the same map."""
    maps = [Control(control, pose="waving-01") for control in controls]
    asked: Any = {"seed": 3, "steps": 2, "width": 256, "height": 256, "controls": maps}
    arrays = preprocess(tensors_from_parameters(PROMPT, asked))
    needed = {name: one for name, one in arrays.items() if name not in ("metadata", "output_format")}
    return diffuse(needed, wanted=("pixels",))["pixels"][0]


@pytest.mark.card("a card and TensorRT-RTX: the miniature's ControlNets, opened and closed in turn")
def test_controlnets_that_take_turns_draw_as_if_all_were_open(
    miniature: Deployment, record: Callable[..., None]
) -> None:
    """Bit for bit, and without taking more of the card from swap to swap."""
    manifest, folder = read_manifest(miniature.build_folder), miniature.build_folder
    controls = list(manifest.controlnets)
    pairs = [tuple(controls[:2]), tuple(controls[2:4])]
    with Preprocess(manifest, folder) as preprocess:
        with Diffuse(with_places(manifest, len(controls)), folder) as diffuse:
            wanted = {(control,): drawn(preprocess, diffuse, control) for control in controls}
            wanted |= {pair: drawn(preprocess, diffuse, *pair) for pair in pairs}
        with Diffuse(with_places(manifest, 2), folder) as diffuse:
            diffuse.warm_up()
            for asked, picture in wanted.items():
                assert np.array_equal(drawn(preprocess, diffuse, *asked), picture), asked
            before = read_card_memory(0)
            rng = random.Random(0)
            for _ in range(_REQUESTS):
                asked = rng.choice(list(wanted))
                assert np.array_equal(drawn(preprocess, diffuse, *asked), wanted[asked]), asked
            after = read_card_memory(0)
            counts = diffuse.controlnets.counts
    assert counts.swaps > _REQUESTS // 4
    record(controlnet_swap_seconds=round(counts.seconds / counts.swaps, 4), controlnet_swaps=counts.swaps)
    if before is not None and after is not None:
        assert after.used - before.used <= _LEAK_MIB << 20
