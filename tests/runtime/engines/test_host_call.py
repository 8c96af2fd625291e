"""An engine as a function: inputs are cast, and buffers follow the sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.engines.host_call import HostCall
from intaglio.engines.onnxruntime import OnnxRuntimeBackend

from .toy import NETWORK, write_toy


@pytest.fixture
def backend() -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(threads=1)


def test_host_call_casts_and_follows_sizes(backend: OnnxRuntimeBackend, tmp_path: Path) -> None:
    call = HostCall(backend, backend.load(NETWORK, write_toy(tmp_path / "toy.onnx"), precision="fp32"))
    for count in (1, 3, 1):
        outputs = call({"B": count, "T": 77}, x=np.ones((count, 3), np.float64), scale=np.ones(1, np.float32))
        np.testing.assert_array_equal(outputs["y"], np.full((count, 3), 11.0))


def test_a_repeated_call_allocates_nothing(
    backend: OnnxRuntimeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = HostCall(backend, backend.load(NETWORK, write_toy(tmp_path / "toy.onnx"), precision="fp32"))
    inputs: dict[str, Any] = {"x": np.ones((2, 3), np.float32), "scale": np.ones(1, np.float32)}
    first = call({"B": 2}, **inputs)["y"]
    monkeypatch.setattr(backend, "allocate", None)
    np.testing.assert_array_equal(call({"B": 2}, **inputs)["y"], first)
