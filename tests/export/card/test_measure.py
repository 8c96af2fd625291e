"""Measuring: here on ONNX Runtime, whose figures mean nothing for a card, with small shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.engines.onnxruntime import OnnxRuntimeBackend
from intaglio.errors import BuildError
from intaglio_export.card.graphs import FP8, KINDS
from intaglio_export.card.measure import measure_card, measure_ceilings, sums_of
from intaglio_export.engines.job import CompileJob
from intaglio_export.engines.onnxruntime import OnnxRuntimeBuilder


class Refusing(OnnxRuntimeBuilder):
    """ONNX Runtime's engines, without fp8."""

    def __init__(self, *, refused: str = FP8) -> None:
        self.refused = refused

    def build(self, job: CompileJob, path: Path) -> dict[str, Any]:
        if job.network.name == self.refused:
            raise BuildError(f"{job.network.name}: refused")
        return super().build(job, path)


def test_every_speed_is_measured() -> None:
    backend = OnnxRuntimeBackend(threads=2, rebuild="")
    speed = measure_card(Refusing(), backend, divisor=64)
    backend.close()
    assert tuple(speed.operations) == KINDS
    assert all(1e8 < value < 1e13 for value in speed.operations.values())
    assert speed.fp8 is None
    assert min(speed.bandwidth, speed.from_host) > 1e8, "bytes a second"
    assert speed.sums == "float32", "ONNX Runtime computes float16 in float32"
    assert 1e-5 < speed.error < 6e-4


def test_an_engine_in_float16_that_cannot_be_built_ends_the_measurement() -> None:
    backend = OnnxRuntimeBackend(threads=2, rebuild="")
    with pytest.raises(BuildError, match="products: refused"):
        measure_card(Refusing(refused="products"), backend, divisor=64)
    backend.close()


def test_sums_in_float16_are_recognised_by_their_error() -> None:
    """The same product added term by term in both types."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal((8, 5120)).astype(np.float16)
    weights = (generator.standard_normal((5120, 32)) / np.sqrt(5120)).astype(np.float16)
    exact = values.astype(np.float64) @ weights.astype(np.float64)
    for kind in ("float16", "float32"):
        total = np.zeros(exact.shape, kind)
        for start in range(0, 5120, 16):  # a tensor core adds 16 products exactly
            part = values[:, start : start + 16].astype(np.float64) @ weights[start : start + 16].astype(
                np.float64
            )
            total = (total + part.astype(kind)).astype(kind)
        found = total.astype(np.float16).astype(np.float64)
        error = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
        assert sums_of(error) == kind


def test_ceilings_of_a_processor_are_measured_in_its_precision() -> None:
    backend = OnnxRuntimeBackend(threads=2, rebuild="")
    found = measure_ceilings(
        OnnxRuntimeBuilder(), backend, precision="fp32", threads=2, divisor=64, choose=min
    )
    backend.close()
    assert found.precision == "fp32"
    assert tuple(found.operations) == KINDS
    assert all(1e8 < value < 1e13 for value in (*found.operations.values(), found.bandwidth))
