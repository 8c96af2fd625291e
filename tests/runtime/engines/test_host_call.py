"""An engine as a function: inputs are cast, and buffers follow the sizes."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.engines.host_call import HostCall
from intaglio.engines.onnxruntime import HostArray, OnnxRuntimeBackend
from intaglio.errors import Unavailable

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


def test_the_buffers_before_are_freed_first(
    backend: OnnxRuntimeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both together would be the peak of memory, and nobody counts on two."""
    call = HostCall(backend, backend.load(NETWORK, write_toy(tmp_path / "toy.onnx"), precision="fp32"))
    scale = np.ones(1, np.float32)
    call({"B": 2}, x=np.ones((2, 3), np.float32), scale=scale)
    old = [weakref.ref(array) for array in call._arrays.values()]
    allocate = backend.allocate

    def allocated(shape: tuple[int, ...], dtype: str) -> HostArray:
        assert not any(one() for one in old)
        return allocate(shape, dtype)

    monkeypatch.setattr(backend, "allocate", allocated)
    call({"B": 3}, x=np.ones((3, 3), np.float32), scale=scale)


def test_where_memory_is_short_the_sizes_before_still_work(
    backend: OnnxRuntimeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether buffers or the execution context could not be had."""
    engine: Any = backend.load(NETWORK, write_toy(tmp_path / "toy.onnx"), precision="fp32")
    call = HostCall(backend, engine)
    scale = np.ones(1, np.float32)

    def made(count: int, value: float) -> Any:
        return call({"B": count}, x=np.full((count, 3), value, np.float32), scale=scale)["y"]

    def refuse(*_: Any) -> None:
        raise Unavailable("out of memory")

    for owner, name in ((backend, "allocate"), (engine, "bind")):
        np.testing.assert_array_equal(made(1, 2.0), np.full((1, 3), 12.0))
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, refuse)
            with pytest.raises(Unavailable):
                made(2, 3.0)
        np.testing.assert_array_equal(made(1, 4.0), np.full((1, 3), 14.0))
        np.testing.assert_array_equal(made(2, 5.0), np.full((2, 3), 15.0))
