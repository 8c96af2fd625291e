"""Sets of LoRAs in the engines of this machine, without Triton."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.builds.manifest import BuildManifest, read_manifest
from intaglio.contract.config import Deployment
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.stages.preprocess.stage import Preprocess
from intaglio_client import Parameters
from intaglio_client.parameters import tensors_from_parameters

from .conftest import PROMPT, decibels, fused

Make = Callable[[list[tuple[str, float | None]]], Any]
A: list[tuple[str, float | None]] = [("mara", 1.0)]
B: list[tuple[str, float | None]] = [("night", 0.9)]


@contextlib.contextmanager
def opened(manifest: BuildManifest, folder: Path) -> Iterator[tuple[Make, Diffuse]]:
    """The stages of a build: loras -> picture of 256x256 with four steps."""
    with Preprocess(manifest, folder) as preprocess, Diffuse(manifest, folder) as diffuse:

        def make(loras: list[tuple[str, float | None]]) -> Any:
            asked: Parameters = {
                "seed": 3,
                "steps": 4,
                "width": 256,
                "height": 256,
                "trigger_words": False,
                "loras": loras,
            }
            arrays = preprocess(tensors_from_parameters(PROMPT, asked))
            for name in ("metadata", "output_format"):
                arrays.pop(name, None)
            return diffuse(arrays)["pixels"][0]

        yield make, diffuse


@pytest.mark.card(
    "a card and TensorRT-RTX: sets of LoRAs in the miniature's engines, and builds that fuse them"
)
def test_sets_equal_fused_builds(miniature: Deployment, tmp_path: Path, record: Callable[..., None]) -> None:
    """A, B, A+B, none, A: each as if no other had been applied before."""
    sets = {"a": A, "b": B, "both": A + B, "none": [], "a_again": A}
    with opened(read_manifest(miniature.build_folder), miniature.build_folder) as (make, _):
        base = make([])
        found = {name: make(loras) for name, loras in sets.items()}
    assert np.array_equal(found["none"], base)
    assert np.array_equal(found["a_again"], found["a"])
    for name in ("a", "b", "both"):
        assert decibels(found[name], base) < 40, "the set is seen"
    result = fused(miniature, tmp_path, {"mara": 1.0})
    with opened(result.manifest, result.folder) as (make, _):
        apart = decibels(found["a"], make([]))
    record(decibels_swapped_to_fused=round(apart, 1))
    assert apart >= 40
