"""Passes of a TensorRT engine, as far as they go without a card: shapes, addresses, captured graphs, and what
is freed when.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from intaglio.contract.tensors import NetworkSpec, TensorSpec
from intaglio.errors import IntaglioError
from intaglio.tensorrt_engine import CudaArray, RuntimeCache, TensorRTBackend, TensorRTBound, TensorRTEngine

NETWORK = NetworkSpec("toy", (TensorSpec("x", ("C", 4), "compute"),), (TensorSpec("y", ("C", 4), "compute"),))


@dataclass
class Cuda:
    """The card's log."""

    calls: list[str] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    addresses: int = 0x1000

    @property
    def runtime(self) -> Any:
        kinds = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
        modes = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
        return SimpleNamespace(cudaFree=self.free.append, cudaMemcpyKind=kinds, cudaStreamCaptureMode=modes)

    def __call__(self, function: str, *arguments: Any) -> Any:
        self.calls.append(function)
        if function == "cudaMalloc":
            self.addresses += 0x1000
            return self.addresses
        return function


@dataclass
class Context:
    """`IExecutionContext`."""

    cuda: Cuda
    capturable: bool = True
    breaks_capture: bool = False
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    addresses: dict[str, int] = field(default_factory=dict)
    arena: int = 0

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        return True

    def set_device_memory(self, address: int, size: int) -> None:
        self.arena = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes.append(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return self.capturable

    def execute_async_v3(self, stream: int) -> bool:
        capturing = self.cuda.calls[-1:] == ["cudaStreamBeginCapture"]
        self.cuda.calls.append("enqueue")
        return not (capturing and self.breaks_capture)


class Plan:
    """`ICudaEngine` of one profile that admits one to three chunks."""

    device_memory_size_v2 = 1024
    num_optimization_profiles = 1

    def __init__(self, context: Context) -> None:
        self.context = context

    def create_execution_context(self, configuration: Any) -> Context:
        return self.context

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(1, 4), (2, 4), (3, 4)]


@dataclass
class Cache:
    """`RuntimeCache`."""

    writes: int = 0

    def write(self) -> None:
        self.writes += 1


def make_engine(*, cuda_graph: bool = True, **context: Any) -> tuple[TensorRTEngine, Cuda, Context]:
    cuda = Cuda()
    backend: Any = object.__new__(TensorRTBackend)  # opening one needs a card
    vars(backend).update(
        name="tensorrt-rtx",
        rebuild="intaglio build",
        cuda_graph=cuda_graph,
        cuda=cuda,
        stream=7,
        arena=None,
        compiled=[],
    )
    made: Any = object.__new__(TensorRTEngine)
    fake = Context(cuda, **context)
    vars(made).update(
        network=NETWORK,
        precision="fp16",
        backend=backend,
        plan=Plan(fake),
        _contexts={},
        _configuration=None,
        _cache=Cache(),
    )
    return made, cuda, fake


def bind(engine: TensorRTEngine, chunks: int) -> TensorRTBound:
    sizes = {"C": chunks}
    return engine.bind(
        sizes, {spec.name: engine.backend.allocate(spec.shape(sizes), "float16") for spec in NETWORK.tensors}
    )


def launches(cuda: Cuda) -> list[str]:
    return [call for call in cuda.calls if call in ("enqueue", "cudaGraphLaunch", "cudaStreamBeginCapture")]


def test_a_pass_is_captured_at_its_second_run_and_replayed() -> None:
    engine, cuda, _ = make_engine()
    bound = bind(engine, 1)
    for _ in range(3):
        bound.run()
    assert launches(cuda) == [
        "enqueue",
        "cudaStreamBeginCapture",
        "enqueue",
        "cudaGraphLaunch",
        "cudaGraphLaunch",
    ]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"capturable": False}, "TensorRT says that it cannot be captured"),
        ({"breaks_capture": True}, "enqueue failed"),
    ],
)
def test_a_pass_that_cannot_be_captured_is_enqueued(
    given: dict[str, bool], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine, cuda, _ = make_engine(**given)
    bound = bind(engine, 1)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            bound.run()
    assert launches(cuda)[-2:] == ["enqueue", "enqueue"]
    assert "cudaGraphLaunch" not in cuda.calls
    assert cuda.calls.count("cudaStreamEndCapture") == cuda.calls.count("cudaStreamBeginCapture")
    (record,) = caplog.records
    assert record.getMessage().startswith("toy runs without a CUDA graph: ")
    assert reason in record.getMessage()


def test_buffers_and_graphs_are_freed_with_what_is_bound_to_them() -> None:
    engine, cuda, context = make_engine()
    first, second = bind(engine, 1), bind(engine, 2)
    for _ in range(2):
        first.run()
    addresses = {array.address for array in first.arrays.values()}
    del first
    assert addresses <= set(cuda.free)
    assert cuda.calls.count("cudaGraphExecDestroy") == 1
    second.run()
    assert context.shapes == [(1, 4), (2, 4)]
    assert context.addresses == {name: array.address for name, array in second.arrays.items()}


def test_a_closed_engine_keeps_nothing_on_the_card() -> None:
    engine, cuda, _ = make_engine()
    bound = bind(engine, 1)
    for _ in range(2):
        bound.run()
    context = bound._context
    engine.close()
    assert cuda.calls[-1] == "cudaGraphExecDestroy"
    assert not hasattr(context, "context")
    assert not hasattr(engine, "plan")


def test_a_refit_is_followed_by_a_new_capture() -> None:
    engine, cuda, _ = make_engine()
    bound = bind(engine, 1)
    for _ in range(2):
        bound.run()
    engine._contexts[0].forget_graphs()
    before = len(launches(cuda))
    for _ in range(2):
        bound.run()
    assert launches(cuda)[before:] == ["enqueue", "cudaStreamBeginCapture", "enqueue", "cudaGraphLaunch"]
    assert cuda.calls.count("cudaGraphExecDestroy") == 1


def test_an_arena_that_grows_reaches_every_context() -> None:
    engine, _, context = make_engine()
    bound = bind(engine, 1)
    bound.run()
    before = context.arena
    engine.backend.reserve(4096)
    bound.run()
    arena = engine.backend.arena
    assert arena is not None
    assert context.arena == arena.address != before


def test_what_was_compiled_for_each_new_shape_is_kept() -> None:
    engine, _, _ = make_engine()
    cache: Any = engine._cache
    for chunks, writes in ((1, 1), (2, 2), (1, 2), (3, 3)):
        bind(engine, chunks).run()
        engine.backend.keep_compiled()
        assert cache.writes == writes


def test_a_runtime_cache_is_written_whole_or_not_at_all(tmp_path: Any) -> None:
    written = RuntimeCache(SimpleNamespace(serialize=lambda: b"kernels"), tmp_path / "a")
    written.write()
    assert (tmp_path / "a").read_bytes() == b"kernels"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644
    RuntimeCache(SimpleNamespace(serialize=lambda: None), tmp_path / "b").write()
    (tmp_path / "c").mkdir()
    RuntimeCache(
        SimpleNamespace(serialize=lambda: b"kernels"), tmp_path / "c"
    ).write()  # a folder is in its place
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def test_a_row_of_an_array_keeps_the_whole_alive() -> None:
    cuda: Any = Cuda()
    whole = CudaArray(0x100, (3, 4), np.dtype("float16"), owner=None, cuda=cuda)
    row = whole[2]
    del whole
    assert (row.address, row.shape, cuda.free) == (0x100 + 2 * 8, (4,), [])
    del row
    assert cuda.free == [0x100]


def test_an_enqueue_that_fails_is_an_error() -> None:
    engine, _, context = make_engine(cuda_graph=False)
    context.execute_async_v3 = lambda stream: False  # type: ignore[method-assign]
    with pytest.raises(IntaglioError, match="toy: enqueue failed"):
        bind(engine, 1).run()
