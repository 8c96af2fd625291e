"""Passes of an engine: execution contexts, the buffers bound to them, and captured CUDA graphs."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from intaglio.contract.tensors import NetworkSpec
from intaglio.engines.tensorrt.device import CudaArray, Device
from intaglio.engines.tensorrt.library import TensorRT
from intaglio.engines.tensorrt.runtime_cache import Shapes
from intaglio.errors import IntaglioError

if TYPE_CHECKING:
    import tensorrt as trt  # type: ignore[import-not-found,unused-ignore]

__all__ = ["TensorRTBound", "TensorRTContext"]

log = logging.getLogger(__name__)


class TensorRTContext:
    """One profile's execution context. It has no memory for activations but uses the device's arena."""

    def __init__(
        self,
        network: NetworkSpec,
        execution: trt.IExecutionContext,
        *,
        arena_bytes: int,
        library: TensorRT,
        device: Device,
        expect_compilation: Callable[[Shapes], None],
    ) -> None:
        """`expect_compilation` is called with the input shapes of each pass that has other buffers than the
        one before.
        """
        self.network = network
        self.device = device
        self._execution = execution
        self._arena_bytes = arena_bytes
        self._arena_address = 0
        self._library = library
        self._expect_compilation = expect_compilation
        # Weak: buffers of a size that is no longer used are freed with the last reference to what is bound to
        # them.
        self._current: weakref.ref[TensorRTBound] | None = None
        self._all_bound: weakref.WeakSet[TensorRTBound] = weakref.WeakSet()
        self.generation = 0
        """Graphs captured in an earlier generation are invalid."""

    def bind(self, arrays: Mapping[str, CudaArray]) -> TensorRTBound:
        """A pass over `arrays`, one for every tensor of the network."""
        bound = TensorRTBound(self, arrays)
        self._all_bound.add(bound)
        return bound

    def use(self, bound: TensorRTBound) -> None:
        """Give the context the arena and the buffers of `bound`, unless it has them already."""
        arena = self.device.reserve(self._arena_bytes)
        if arena.address != self._arena_address:
            self._execution.set_device_memory(arena.address, arena.nbytes)
            self._arena_address = arena.address
            self.forget_graphs()
        if self._current is None or self._current() is not bound:
            self._use_buffers(bound.arrays)
            self._current = weakref.ref(bound)

    def _use_buffers(self, arrays: Mapping[str, CudaArray]) -> None:
        shapes = tuple(arrays[spec.name].shape for spec in self.network.inputs)
        self._expect_compilation(shapes)
        for spec, shape in zip(self.network.inputs, shapes, strict=True):
            if not self._execution.set_input_shape(spec.name, shape):
                raise IntaglioError(f"{self.network.name}.{spec.name}: shape {list(shape)} refused")
        for name, array in arrays.items():
            if not self._execution.set_tensor_address(name, array.address):
                raise IntaglioError(f"{self.network.name}.{name}: address refused")

    def forget_graphs(self) -> None:
        """Capture every pass again: its graph contains addresses or weights that are no longer valid."""
        self.generation += 1

    def enqueue(self) -> None:
        """One pass on the stream."""
        if not self._execution.execute_async_v3(int(self.device.stream)):
            raise IntaglioError(f"{self.network.name}: enqueue failed; see the log")

    def capture(self) -> Any:
        """A CUDA graph of one pass; IntaglioError where TensorRT cannot be captured."""
        if not self._library.can_capture(self._execution, int(self.device.stream)):
            raise IntaglioError("TensorRT says that it cannot be captured")
        return self.device.capture(self.enqueue)

    def close(self) -> None:
        """Free the context's memory, even while somebody still refers to a `TensorRTBound`."""
        for bound in self._all_bound:
            bound.drop_graph()
        del self._execution
        del self._expect_compilation  # it refers to the engine's runtime cache


class TensorRTBound:
    """Buffers of one context. A captured pass is replayed from its second run on.

    A graph saves 2 % of a pass, so a pass that cannot be captured is simply enqueued each time; the log says
    so.
    """

    def __init__(self, context: TensorRTContext, arrays: Mapping[str, CudaArray]) -> None:
        self.arrays = arrays
        self._context = context
        self._graph: Any = None
        self._generation = -1
        self._runs = 0
        self._captures = context.device.cuda_graph

    def run(self) -> None:
        """Enqueue one pass."""
        context = self._context
        context.use(self)
        if self._generation != context.generation:
            self.drop_graph()
            self._generation = context.generation
        # The first pass may still allocate and set up, which a capture must not contain.
        if self._graph is None and self._captures and self._runs > 0:
            self._capture()
        if self._graph is not None:
            context.device.launch(self._graph)
        else:
            self._enqueue()
        self._runs += 1

    def _enqueue(self) -> None:
        try:
            self._context.enqueue()
        except IntaglioError:
            self._context.device.synchronize()  # where the card failed, this raises DeviceFailed
            raise

    def _capture(self) -> None:
        try:
            self._graph = self._context.capture()
        except IntaglioError as error:
            self._context.device.synchronize()  # where the card failed, this raises DeviceFailed
            self._captures = False
            log.warning("%s runs without a CUDA graph: %s", self._context.network.name, error)

    def __del__(self) -> None:
        self.drop_graph()

    def drop_graph(self) -> None:
        """Free the graph; the pass is captured again at its second run from now."""
        if self._graph is not None:
            self._context.device.destroy(self._graph)
        self._graph = None
        self._runs = 0
