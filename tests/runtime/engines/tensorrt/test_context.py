"""Passes without a card: shapes, addresses, captured graphs, and when memory is freed."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from intaglio.engines.tensorrt.context import TensorRTBound, TensorRTContext
from intaglio.engines.tensorrt.device import Device
from intaglio.engines.tensorrt.library import TensorRT
from intaglio.engines.tensorrt.runtime_cache import Shapes
from intaglio.errors import DeviceFailed, IntaglioError

from .fakes import NETWORK, Context, Cuda

ARENA = 1024


class World:
    """One context on one device."""

    def __init__(self, *, cuda_graph: bool = True, **given: Any) -> None:
        anything: Any = None
        self.cuda: Any = Cuda()
        self.execution: Any = Context(self.cuda, **given)
        self.device = Device(self.cuda, cuda_graph=cuda_graph, gpu=0)
        self.announced: list[Shapes] = []
        self.context = TensorRTContext(
            NETWORK,
            self.execution,
            arena_bytes=ARENA,
            library=TensorRT("tensorrt-rtx", anything, anything, anything, "intaglio build"),
            device=self.device,
            expect_compilation=self.announced.append,
        )

    def bind(self, chunks: int) -> TensorRTBound:
        arrays = {
            spec.name: self.device.allocate(spec.shape({"C": chunks}), "float16") for spec in NETWORK.tensors
        }
        return self.context.bind(arrays)

    @property
    def launches(self) -> list[str]:
        wanted = ("enqueue", "cudaGraphLaunch", "cudaStreamBeginCapture")
        return [call for call in self.cuda.calls if call in wanted]


def test_a_pass_is_captured_at_its_second_run_and_replayed() -> None:
    world = World()
    bound = world.bind(1)
    for _ in range(3):
        bound.run()
    captured = ["cudaStreamBeginCapture", "enqueue", "cudaGraphLaunch"]
    assert world.launches == ["enqueue", *captured, "cudaGraphLaunch"]


def test_without_cuda_graphs_every_pass_is_enqueued() -> None:
    world = World(cuda_graph=False)
    bound = world.bind(1)
    for _ in range(3):
        bound.run()
    assert world.launches == ["enqueue"] * 3


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
    world = World(**given)
    bound = world.bind(1)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            bound.run()
    calls = world.cuda.calls
    assert world.launches[-2:] == ["enqueue", "enqueue"]
    assert "cudaGraphLaunch" not in calls
    assert calls.count("cudaStreamEndCapture") == calls.count("cudaStreamBeginCapture")
    (record,) = caplog.records
    assert record.getMessage().startswith("toy runs without a CUDA graph: ")
    assert reason in record.getMessage()


@pytest.mark.parametrize("given", [{"works": False, "cuda_graph": False}, {"breaks_capture": True}])
def test_a_card_that_failed_is_named_and_not_taken_for_a_pass_that_fails(given: dict[str, bool]) -> None:
    """The process can then only end, whether the failure shows in a pass or while one is captured."""
    world = World(**given)
    bound = world.bind(1)
    if world.execution.works:
        bound.run()
    world.cuda.lost = True
    with pytest.raises(DeviceFailed, match="illegal memory access"):
        bound.run()


def test_buffers_and_graphs_are_freed_with_what_is_bound_to_them() -> None:
    world = World()
    first = world.bind(1)
    second = world.bind(2)
    for _ in range(2):
        first.run()
    addresses = {array.address for array in first.arrays.values()}
    del first
    assert addresses <= set(world.cuda.free)
    assert world.cuda.calls.count("cudaGraphExecDestroy") == 1
    second.run()
    assert world.execution.shapes == [(1, 4), (2, 4)]
    assert world.execution.addresses == {name: array.address for name, array in second.arrays.items()}


def test_a_closed_context_keeps_nothing_on_the_card() -> None:
    world = World()
    bound = world.bind(1)
    for _ in range(2):
        bound.run()
    world.context.close()
    assert world.cuda.calls[-1] == "cudaGraphExecDestroy"
    assert world.execution not in vars(world.context).values()


def test_forgotten_graphs_are_captured_again() -> None:
    world = World()
    bound = world.bind(1)
    for _ in range(2):
        bound.run()
    world.context.forget_graphs()
    before = len(world.launches)
    for _ in range(2):
        bound.run()
    assert world.launches[before:] == ["enqueue", "cudaStreamBeginCapture", "enqueue", "cudaGraphLaunch"]
    assert world.cuda.calls.count("cudaGraphExecDestroy") == 1


def test_an_arena_that_grows_reaches_the_context() -> None:
    world = World()
    bound = world.bind(1)
    bound.run()
    before = world.execution.arena
    arena = world.device.reserve(4 * ARENA)
    bound.run()
    assert world.execution.arena == arena.address != before


def test_shapes_are_announced_before_the_pass_that_may_compile() -> None:
    world = World()
    for chunks in (1, 2):
        bound = world.bind(chunks)
        bound.run()
        assert world.announced[-1] == ((chunks, 4),)
        bound.run()
    assert len(world.announced) == 2, "the buffers are the same"


def test_an_enqueue_that_fails_is_an_error() -> None:
    world = World(cuda_graph=False, works=False)
    with pytest.raises(IntaglioError, match="toy: enqueue failed"):
        world.bind(1).run()
