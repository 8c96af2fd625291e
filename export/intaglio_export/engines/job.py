"""One network to compile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from intaglio.contract.config import Swap
from intaglio.contract.tensors import NetworkSpec, Precision, Profile

__all__ = ["ENGINE_FILES", "CompileJob"]

ENGINE_FILES: Final = {"onnxruntime": "engine.onnx", "tensorrt-rtx": "engine.plan", "tensorrt": "engine.plan"}
"""Name of the file that each runtime opens."""


@dataclass(frozen=True, slots=True)
class CompileJob:
    """What an engine is made from and for."""

    onnx: Path
    network: NetworkSpec
    profiles: tuple[Profile, ...]
    precision: Precision
    timing_cache: Path
    """Kernel timings of earlier builds, shared between networks; full TensorRT reads and writes them."""
    swap: Swap = "off"
    """Which weights may be replaced in a running engine.

    On the card measured, `transformer` makes a step 9 % slower and `all` 30 %.
    """
