"""What tests of diffuse send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import numpy as np

from intaglio.engines.interface import Array

CONTROLS: Final = json.dumps(
    [{"type": "pose", "pose": "waving-01", "end": 0.5}, {"type": "canny", "pose": "waving-01", "weight": 0.5}]
)


def int_tensor(value: int) -> Array:
    """A scalar input."""
    return np.array([value], np.int32)


def for_diffuse(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What preprocess made, without the outputs that only postprocess takes."""
    return {name: value for name, value in arrays.items() if name not in ("output_format", "metadata")}
