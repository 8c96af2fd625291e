"""Speed of the card in this machine, or of its processor: small engines built, run and timed.

Operations a second of matrix products, convolutions and attention, each as a chain with SDXL's shapes, and
bytes a second of copies. For a card also whether products in float16 add in float16, which decides the speed
of GeForce cards.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
import onnx
from onnx import numpy_helper

from intaglio.contract.tensors import Precision, compute_dtype
from intaglio.engines.buffers import allocate_tensors
from intaglio.engines.interface import Array, Backend, Bound, DeviceArray
from intaglio.errors import BuildError, EngineMismatch
from intaglio_export.card.graphs import CardGraph, Kind, card_graphs, fp8_graph, one_product
from intaglio_export.engines.job import CompileJob

__all__ = [
    "Builder",
    "CardSpeed",
    "Ceilings",
    "Choice",
    "Sums",
    "measure_card",
    "measure_ceilings",
    "seconds_of",
    "sums_of",
]

Sums = Literal["float16", "float32"]
Choice = Callable[[list[float]], float]
"""Of several seconds of the same work those that count."""
_MIB: Final = 2**20
_COPIED: Final = 256 * _MIB
_SAMPLES: Final = 5
_SAMPLE_SECONDS: Final = 0.03
_COMPARED_ROWS: Final = 16
_ROUNDING: Final = 6e-4
"""Relative error up to which sums were made in float32. Rounding each result to float16 alone gives 2e-4 on
average; sums of 5120 terms in float16 give 2e-3 and more.
"""


@dataclass(frozen=True, slots=True)
class CardSpeed:
    """What was measured."""

    operations: dict[Kind, float]
    """Floating-point operations a second in float16."""
    fp8: float | None
    """The same of products in fp8; None where the card or the library has none."""
    bandwidth: float
    """Bytes a second that a copy within the card reads and writes together."""
    from_host: float
    """Bytes a second from pinned host memory to the card."""
    sums: Sums
    """What products in float16 add in."""
    error: float
    """Relative error of such a product against float64."""
    seconds: float
    """That the whole measurement took."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What no engine here is expected to exceed."""

    precision: Precision
    operations: dict[Kind, float]
    """Floating-point operations a second."""
    bandwidth: float
    """Bytes a second that copies read and write together."""


class Builder(Protocol):
    """What makes an engine file of a graph: `TensorRTBuilder` or `OnnxRuntimeBuilder`."""

    def build(self, job: CompileJob, path: Path) -> object: ...


def measure_card(builder: Builder, backend: Backend, *, divisor: int = 1) -> CardSpeed:
    """Measure the card that `backend` computes on, with engines of `builder`.

    `divisor` makes the work smaller, see `card_graphs`.

    Raises:
        BuildError: an engine in float16 cannot be built.
        DeviceFailed, Unavailable: the card fails, or its memory is full.
    """
    started = time.perf_counter()
    ceilings = measure_ceilings(builder, backend, divisor=divisor)
    fp8 = _fp8_speed(fp8_graph(divisor), builder, backend)
    error = _error_of_sums(one_product(divisor), builder, backend)
    copied = _COPIED // divisor
    return CardSpeed(
        operations=ceilings.operations,
        fp8=fp8,
        bandwidth=ceilings.bandwidth,
        from_host=copied / _upload_seconds(backend, copied),
        sums=sums_of(error),
        error=error,
        seconds=time.perf_counter() - started,
    )


def measure_ceilings(
    builder: Builder,
    backend: Backend,
    *,
    precision: Precision = "fp16",
    threads: int = 1,
    divisor: int = 1,
    choose: Choice = statistics.median,
) -> Ceilings:
    """Measure operations and bytes a second of what `backend` computes on.

    Args:
        threads: copy at the same time: 1 for a card, whose copies take all of it.
        choose: which of several samples counts.

    Raises: as `measure_card`.
    """
    kinds: dict[Kind, float] = {}
    for graph in card_graphs(divisor, precision=precision):
        with _opened(graph, builder, backend) as opened:
            kinds[graph.kind] = graph.operations / seconds_of(opened.bound.run, backend, choose=choose)
    copied = _COPIED // divisor
    run = _copies(backend, copied, threads)
    return Ceilings(precision, kinds, 2 * copied * threads / seconds_of(run, backend, choose=choose))


def sums_of(error: float) -> Sums:
    """What a product with this relative error was added in."""
    return "float32" if error <= _ROUNDING else "float16"


def _fp8_speed(graph: CardGraph, builder: Builder, backend: Backend) -> float | None:
    """The same; None where the library or the card refuses fp8."""
    try:
        with _opened(graph, builder, backend) as opened:
            return graph.operations / seconds_of(opened.bound.run, backend)
    except (BuildError, EngineMismatch):
        return None


def _error_of_sums(graph: CardGraph, builder: Builder, backend: Backend) -> float:
    """Relative error of some rows of one product against float64."""
    with _opened(graph, builder, backend) as opened:
        opened.bound.run()
        found = backend.download(opened.arrays["y"])[:_COMPARED_ROWS]
    exact = opened.given[:_COMPARED_ROWS].astype(np.float64) @ opened.weight.astype(np.float64)
    difference = float(np.linalg.norm(found.astype(np.float64) - exact))
    return difference / float(np.linalg.norm(exact))


@dataclass(frozen=True, slots=True)
class _Opened:
    bound: Bound
    arrays: dict[str, DeviceArray]
    given: Array
    """The input's values."""
    weight: Array
    """The last weight of the graph."""


@contextmanager
def _opened(graph: CardGraph, builder: Builder, backend: Backend) -> Iterator[_Opened]:
    """`graph` as an engine with an input of normal values."""
    with tempfile.TemporaryDirectory(prefix="intaglio-card-") as name:
        folder = Path(name)
        model = graph.model()
        onnx.save(model, str(folder / "graph.onnx"))
        plan = folder / "engine.plan"
        job = CompileJob(folder / "graph.onnx", graph.network, (), graph.precision, folder / "timings")
        builder.build(job, plan)
        engine = backend.load(graph.network, plan, precision=graph.precision)
        try:
            arrays = allocate_tensors(backend, engine, {})
            drawn = np.random.default_rng(0).standard_normal(graph.shape, dtype=np.float32)
            given = drawn.astype(compute_dtype(graph.precision))
            backend.upload(arrays["x"], given)
            weight = numpy_helper.to_array(model.graph.initializer[-1])
            yield _Opened(engine.bind({}, arrays), arrays, given, weight)
        finally:
            engine.close()


def _copies(backend: Backend, size: int, threads: int) -> Callable[[], object]:
    """Copies `size` bytes in each of `threads`, within the card or the memory."""
    pairs = [(backend.allocate((size,), "uint8"), backend.allocate((size,), "uint8")) for _ in range(threads)]
    for _, source in pairs:  # pages of memory that nobody has written yet are all the same page
        backend.upload(source, np.ones(size, np.uint8))
    if threads == 1:  # a card's stream belongs to this thread
        return lambda: backend.copy(*pairs[0])
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda pair: backend.copy(*pair), pairs))


def _upload_seconds(backend: Backend, size: int) -> float:
    """Of a copy of `size` bytes from pinned host memory."""
    source = backend.hold(np.zeros(size, np.uint8))
    target = backend.allocate((size,), "uint8")
    return seconds_of(lambda: backend.upload(target, source), backend)


def seconds_of(run: Callable[[], object], backend: Backend, *, choose: Choice = statistics.median) -> float:
    """Of one `run`, which enqueues work: the median, or another choice, of samples that are long enough for
    the clock.
    """
    run()  # sets up what is needed once
    backend.synchronize()
    once = max(_sample(run, 1, backend), 1e-6)
    count = min(max(int(_SAMPLE_SECONDS / once), 1), 1000)
    return choose([_sample(run, count, backend) for _ in range(_SAMPLES)])


def _sample(run: Callable[[], object], count: int, backend: Backend) -> float:
    """Seconds of one of `count` runs in a row."""
    started = time.perf_counter()
    for _ in range(count):
        run()
    backend.synchronize()
    return (time.perf_counter() - started) / count
