"""The backend without a card: what it opens, and that a download keeps what was compiled."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from intaglio.builds.manifest import RUNTIME_CACHE_NAME
from intaglio.engines.tensorrt import backend as module
from intaglio.engines.tensorrt import library
from intaglio.engines.tensorrt.backend import TensorRTBackend
from intaglio.engines.tensorrt.library import TensorRT
from intaglio.errors import EngineMismatch, MissingExtra

from .fakes import NETWORK, Context, Cuda, Plan


class Configuration:
    """`IRuntimeConfig`, whose cache always has something to keep."""

    def set_execution_context_allocation_strategy(self, strategy: str) -> None: ...
    def set_runtime_cache(self, cache: Any) -> None: ...
    def create_runtime_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"kernels")


class RtxPlan(Plan):
    """`ICudaEngine` of TensorRT-RTX."""

    def create_runtime_config(self) -> Configuration:
        return Configuration()


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> TensorRTBackend:
    cuda = Cuda()
    trt = SimpleNamespace(
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED=0),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(NONE=0, EAGER=1),
        Refitter=lambda plan, logger: SimpleNamespace(get_all_weights=lambda: ["a"]),
    )
    runtime: Any = SimpleNamespace(deserialize_cuda_engine=lambda content: RtxPlan(Context(cuda)))
    nothing: Any = None

    def open_library(name: Any, *, rebuild: str) -> TensorRT:
        assert cuda.card == 2, "the library's runtime belongs to the current card"
        return TensorRT(name, trt, nothing, runtime, rebuild)

    monkeypatch.setattr(module, "Cuda", lambda: cuda)
    monkeypatch.setattr(module, "import_tensorrt", lambda name: trt)
    monkeypatch.setattr(module, "open_tensorrt", open_library)
    return TensorRTBackend("tensorrt-rtx", gpu=2, cuda_graph=False, rebuild="intaglio build configs/x.yaml")


@pytest.mark.parametrize("absent", ["cuda.bindings.runtime", "tensorrt_rtx"])
def test_an_absent_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    for name in ("cuda.bindings.runtime", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(MissingExtra, match=r"pip install 'intaglio\[tensorrt\]'"):
        TensorRTBackend("tensorrt-rtx", cuda_graph=False, rebuild="", gpu=0)


def test_a_download_keeps_what_was_compiled(backend: TensorRTBackend, tmp_path: Any) -> None:
    (tmp_path / "toy.plan").write_bytes(b"plan")
    engine = backend.load(NETWORK, tmp_path / "toy.plan", precision="fp16")
    arrays: dict[str, Any] = {
        spec.name: backend.allocate(spec.shape({"C": 1}), "float16") for spec in NETWORK.tensors
    }
    backend.upload(arrays["x"], np.zeros((1, 4), np.float16))
    engine.bind({"C": 1}, arrays).run()
    cache = tmp_path / RUNTIME_CACHE_NAME
    assert not cache.exists()
    assert backend.download(arrays["y"]).shape == (1, 4)
    assert cache.read_bytes() == b"kernels"
    engine.close()
    backend.close()


def test_weights_that_cannot_be_replaced_are_refused_at_load(backend: TensorRTBackend, tmp_path: Any) -> None:
    (tmp_path / "toy.plan").write_bytes(b"plan")
    replaceable = {"b": np.zeros(1)}
    with pytest.raises(EngineMismatch, match=r"toy: not refittable: b.*intaglio build configs/x.yaml"):
        backend.load(NETWORK, tmp_path / "toy.plan", precision="fp16", replaceable=replaceable)


def test_a_plan_that_does_not_load_is_explained_by_the_memory_of_its_card(
    backend: TensorRTBackend, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "toy.plan"
    path.write_bytes(b"plan")
    asked: list[int] = []
    monkeypatch.setattr(backend.library.runtime, "deserialize_cuda_engine", lambda content: None)
    monkeypatch.setattr(library, "read_card_memory", asked.append)
    with pytest.raises(EngineMismatch):
        backend.load(NETWORK, path, precision="fp16")
    assert asked == [2]
