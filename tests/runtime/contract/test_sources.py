"""Where weights come from: exactly one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from intaglio.contract.sources import Source


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "exactly one of"),
        ({"folder": "a", "hub": "b/c"}, "exactly one of"),
        ({"architecture": "sdxl-reduced"}, "architecture and seed go together"),
        ({"folder": "a", "seed": 1}, "architecture and seed go together"),
        ({"folder": "a", "revision": "main"}, "revision goes with hub only"),
        ({"file": "a.ckpt"}, r"must be \.safetensors"),
        ({"hub": "a/b/c"}, "hub"),
    ],
)
def test_impossible_sources(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Source.model_validate(values)


def test_names_for_people() -> None:
    assert str(Source(hub="a/b", revision="main")) == "hub:a/b@main"
    assert str(Source(architecture="sdxl-reduced", seed=3)) == "sdxl-reduced with weights of seed 3"
    assert str(Source(folder=Path("/a"))) == "/a"
