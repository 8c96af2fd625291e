"""Every tensor of an engine gets a buffer, and shared ones are not made twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from intaglio.engines.buffers import allocate_tensors
from intaglio.engines.onnxruntime import OnnxRuntimeBackend

from .toy import NETWORK


def test_buffers_have_the_tables_shapes_and_types() -> None:
    engine: Any = SimpleNamespace(network=NETWORK, precision="fp16")
    backend = OnnxRuntimeBackend(threads=1)
    arrays = allocate_tensors(backend, engine, {"B": 2})
    found = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    assert found == {"x": ("float16", (2, 3)), "scale": ("float32", (1,)), "y": ("float16", (2, 3))}


def test_shared_buffers_are_used() -> None:
    engine: Any = SimpleNamespace(network=NETWORK, precision="fp32")
    backend = OnnxRuntimeBackend(threads=1)
    shared = {"x": backend.allocate((2, 3), "float32"), "other": backend.allocate((1,), "uint8")}
    arrays = allocate_tensors(backend, engine, {"B": 2}, shared=shared)
    assert arrays["x"] is shared["x"]
    assert set(arrays) == {"x", "scale", "y", "other"}
