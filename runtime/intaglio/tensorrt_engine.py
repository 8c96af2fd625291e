"""TensorRT on an NVIDIA card: `tensorrt_rtx` and `tensorrt` have one Python API, so one adapter serves both.

One stream, one activation arena. Every execution context is made without activation memory of its own
(`ExecutionContextAllocationStrategy.USER_MANAGED`) and borrows the arena: engines run one after another on
the stream, so the card holds the largest activation, not their sum. Contexts are made one an optimization
profile, when first bound. Not runnable without a card: exercised by the GPU tests only.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import logging
import mmap
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from intaglio.builds.manifest import RUNTIME_CACHE_NAME
from intaglio.contract.sdxl import LORA_MERGE
from intaglio.contract.tensors import AxisSizes, NetworkSpec, Precision
from intaglio.engines.interface import Array, DeviceArray, check_bindings, check_tensors
from intaglio.errors import EngineMismatch, IntaglioError, MissingExtra, Unavailable
from intaglio.whole_files import storage_problem, write_whole

if TYPE_CHECKING:
    # Types of both modules, from the package tensorrt-stubs where it is installed.
    import tensorrt as trt  # type: ignore[import-not-found,unused-ignore]

__all__ = [
    "CudaArray",
    "TensorRTBackend",
    "TensorRTBound",
    "TensorRTEngine",
    "import_tensorrt",
    "tensorrt_logger",
]

log = logging.getLogger(__name__)

_MODULES: Final = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
_NUMPY_OF_TENSORRT: Final = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "UINT8": "uint8"}
_TENSORRT_OF_NUMPY: Final = {name: kind for kind, name in _NUMPY_OF_TENSORRT.items()}
_ALIGNMENT: Final = 256
"""Of buffers in one allocation, as cudaMalloc's own are."""


class _Cuda:
    """`cuda.bindings.runtime` with its status codes raised as errors."""

    def __init__(self) -> None:
        try:
            self.runtime: Any = import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise MissingExtra("cuda-python", extra="tensorrt") from error

    def __call__(self, function: str, *arguments: Any) -> Any:
        """The one result (or tuple) of `function`.

        Raises:
            Unavailable: the card is out of memory.
            IntaglioError: any other status; the message is CUDA's.
        """
        status, *results = getattr(self.runtime, function)(*arguments)
        if status != self.runtime.cudaError_t.cudaSuccess:
            _, text = self.runtime.cudaGetErrorString(status)
            message = f"{function}: {text.decode() if isinstance(text, bytes) else text}"
            out_of_memory = status == self.runtime.cudaError_t.cudaErrorMemoryAllocation
            raise Unavailable(message) if out_of_memory else IntaglioError(message)
        return results[0] if len(results) == 1 else tuple(results)


class CudaArray:
    """Device memory; a view keeps its owner alive, the owner frees itself."""

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        owner: CudaArray | None,
        cuda: _Cuda,
    ) -> None:
        self.address = address
        self._shape = shape
        self._dtype = dtype
        self._owner = owner
        self._cuda: _Cuda | None = cuda

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self._shape, dtype=np.int64)) * self._dtype.itemsize

    def __getitem__(self, row: int) -> CudaArray:
        if self._cuda is None or not 0 <= row < self._shape[0]:
            raise IndexError(row)
        stride = self.nbytes // self._shape[0]
        return CudaArray(
            self.address + row * stride,
            self._shape[1:],
            self._dtype,
            owner=self._owner or self,
            cuda=self._cuda,
        )

    def rows(self, begin: int, end: int) -> CudaArray:
        if self._cuda is None or not 0 <= begin <= end <= self._shape[0]:
            raise IndexError(f"{begin}:{end}")
        stride = self.nbytes // self._shape[0]
        return CudaArray(
            self.address + begin * stride,
            (end - begin, *self._shape[1:]),
            self._dtype,
            owner=self._owner or self,
            cuda=self._cuda,
        )

    def free(self) -> None:
        """Give the memory back; nothing enqueued may still use it."""
        if self._owner is None and self._cuda is not None:
            self._cuda.runtime.cudaFree(self.address)
        self._cuda = None

    def __del__(self) -> None:
        self.free()


def _device(array: DeviceArray) -> CudaArray:
    if not isinstance(array, CudaArray):
        raise TypeError(f"not an array of this backend: {type(array).__name__}")
    return array


class TensorRTBackend:
    """One card, one stream, one activation arena."""

    def __init__(
        self, runtime: Literal["tensorrt-rtx", "tensorrt"], *, cuda_graph: bool, rebuild: str
    ) -> None:
        self.name = runtime
        self.rebuild = rebuild
        self.cuda_graph = cuda_graph
        self.cuda = _Cuda()
        self.trt = import_tensorrt(runtime)
        self.logger: trt.ILogger = tensorrt_logger(self.trt)
        self.trt_runtime: trt.Runtime = self.trt.Runtime(self.logger)
        self.stream: Any = self.cuda("cudaStreamCreate")
        self.arena: CudaArray | None = None
        self.compiled: list[RuntimeCache] = []
        """Caches with something new in them since they were written."""

    def load(
        self,
        network: NetworkSpec,
        path: Path,
        *,
        precision: Precision,
        replaceable: Mapping[str, Array] | None = None,
    ) -> TensorRTEngine:
        engine = TensorRTEngine(network, path, precision=precision, backend=self)
        if replaceable:
            engine.check_refittable(replaceable)
        return engine

    def allocate(self, shape: tuple[int, ...], dtype: str) -> CudaArray:
        kind = np.dtype(dtype)
        size = max(int(np.prod(shape, dtype=np.int64)) * kind.itemsize, 1)
        array = CudaArray(int(self.cuda("cudaMalloc", size)), shape, kind, owner=None, cuda=self.cuda)
        self.cuda("cudaMemsetAsync", array.address, 0, size, self.stream)
        return array

    def allocate_together(self, shapes: Sequence[tuple[int, ...]], dtype: str) -> list[DeviceArray]:
        kind = np.dtype(dtype)
        sizes = [
            -(-int(np.prod(shape, dtype=np.int64)) * kind.itemsize // _ALIGNMENT) * _ALIGNMENT
            for shape in shapes
        ]
        whole = max(sum(sizes), 1)
        block = CudaArray(
            int(self.cuda("cudaMalloc", whole)), (whole,), np.dtype("uint8"), owner=None, cuda=self.cuda
        )
        begins = itertools.accumulate(sizes, initial=block.address)
        return [
            CudaArray(begin, shape, kind, owner=block, cuda=self.cuda)
            for begin, shape in zip(begins, shapes, strict=False)
        ]

    def hold(self, values: Array) -> Array:
        size = max(values.nbytes, 1)
        address = int(self.cuda("cudaHostAlloc", size, 0))
        pinned = (ctypes.c_ubyte * size).from_address(address)
        # Freed with the last view of it; views of views have it as their base.
        weakref.finalize(pinned, self.cuda.runtime.cudaFreeHost, address).atexit = False
        flat = np.ctypeslib.as_array(pinned)[: values.nbytes]
        held: Array = flat.view(values.dtype).reshape(values.shape)
        np.copyto(held, values)
        return held

    def upload(self, target: DeviceArray, source: Array) -> None:
        # From pageable memory the driver stages the copy before it returns, so `source` is free to change.
        device = _device(target)
        host = np.ascontiguousarray(source.astype(device.dtype, casting="same_kind", copy=False))
        if host.shape != device.shape:
            raise ValueError(f"upload of {list(host.shape)} into {list(device.shape)}")
        kind = self.cuda.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.cuda("cudaMemcpyAsync", device.address, host.ctypes.data, host.nbytes, kind, self.stream)

    def copy(self, target: DeviceArray, source: DeviceArray) -> None:
        to, of = _device(target), _device(source)
        if (to.shape, to.dtype) != (of.shape, of.dtype):
            raise ValueError(f"copy of {of.dtype}{list(of.shape)} into {to.dtype}{list(to.shape)}")
        kind = self.cuda.runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self.cuda("cudaMemcpyAsync", to.address, of.address, of.nbytes, kind, self.stream)

    def download(self, source: DeviceArray) -> Array:
        device = _device(source)
        host = np.empty(device.shape, device.dtype)
        kind = self.cuda.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.cuda("cudaMemcpyAsync", host.ctypes.data, device.address, device.nbytes, kind, self.stream)
        self.synchronize()
        self.keep_compiled()  # whoever downloads has waited anyway
        return host

    def synchronize(self) -> None:
        self.cuda("cudaStreamSynchronize", self.stream)

    def keep_compiled(self) -> None:
        """Write the caches that have something new in them."""
        while self.compiled:
            self.compiled.pop().write()

    def close(self) -> None:
        """Waits, then frees the arena and the stream; close the engines first."""
        self.synchronize()
        if self.arena is not None:
            self.arena.free()
            self.arena = None
        self.cuda("cudaStreamDestroy", self.stream)

    def reserve(self, size: int) -> CudaArray:
        """The arena, grown to at least `size` bytes; contexts pick up its address before each pass."""
        if self.arena is None or self.arena.nbytes < size:
            self.synchronize()
            if self.arena is not None:
                self.arena.free()
                self.arena = None
            self.arena = self.allocate((size,), "uint8")
            log.info("activation arena: %d MiB", size >> 20)
        return self.arena


class RuntimeCache:
    """What TensorRT-RTX compiled for this card, kept beside the engine: with it a restart compiles nothing."""

    def __init__(self, cache: trt.IRuntimeCache, path: Path) -> None:
        self._cache = cache
        self._path = path
        try:
            known = path.read_bytes()
        except OSError:
            return
        if not cache.deserialize(known):
            log.info("%s: of another card, driver or version; it will be replaced", path)

    def write(self) -> None:
        """Put the file in place at once; where the folder is read-only the next start compiles again, and
        that is all.
        """
        data = self._cache.serialize()
        if data is None:
            log.info("%s: not kept: TensorRT-RTX gives no data", self._path)
            return
        try:
            write_whole(self._path, memoryview(data))
        except OSError as error:
            log.info("%s: not kept: %s", self._path, storage_problem(error))


def _deserialize(runtime: trt.Runtime, path: Path) -> trt.ICudaEngine | None:
    # Mapped, not read: a plan of SDXL's UNet is 5 GB, which the host need not hold beside the card.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
        engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan)
        return engine


class TensorRTEngine:
    """One plan; a context a profile."""

    def __init__(
        self, network: NetworkSpec, path: Path, *, precision: Precision, backend: TensorRTBackend
    ) -> None:
        self.network = network
        self.precision = precision
        self.backend = backend
        plan = _deserialize(backend.trt_runtime, path)
        if plan is None:
            version = getattr(backend.trt, "__version__", "unknown")
            raise EngineMismatch(
                f"{network.name}: {path.name} does not load with {backend.name} {version} on this card (made for another card or version?)",
                command=backend.rebuild,
            )
        self.plan = plan
        names = [self.plan.get_tensor_name(index) for index in range(self.plan.num_io_tensors)]
        found = {name: (self._dtype(name), self._shape(name)) for name in names}
        check_tensors(network, found, precision=precision, rebuild=backend.rebuild)
        self._contexts: dict[int, TensorRTContext] = {}
        self._refitter: trt.Refitter | None = None
        self._refittable: frozenset[str] = frozenset()
        self._configuration, self._cache = self._runtime_configuration(path.with_name(RUNTIME_CACHE_NAME))

    def _runtime_configuration(self, path: Path) -> tuple[Any, RuntimeCache | None]:
        """How contexts are made: without activation memory of their own and, with TensorRT-RTX, from the
        runtime cache.

        TensorRT-RTX compiles kernels for a shape when it first sees it. By default it does so in the
        background and runs general ones meanwhile: an image's bits would depend on when it was made, and a
        captured graph would keep the general ones for ever.
        """
        strategy = self.backend.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.backend.name != "tensorrt-rtx":
            return strategy, None
        configuration = self.plan.create_runtime_config()
        configuration.set_execution_context_allocation_strategy(strategy)
        kinds = self.backend.trt.DynamicShapesKernelSpecializationStrategy
        # The merge sees each shape once a set: kernels for a shape would be compiled while sets are put on.
        strategy_of_shapes = kinds.NONE if self.network.name == LORA_MERGE else kinds.EAGER
        configuration.dynamic_shapes_kernel_specialization_strategy = strategy_of_shapes
        cache = configuration.create_runtime_cache()
        kept = RuntimeCache(cache, path)
        configuration.set_runtime_cache(cache)
        return configuration, kept

    @property
    def activation_bytes(self) -> int:
        return int(self.plan.device_memory_size_v2)

    def make_context(self) -> trt.IExecutionContext | None:
        """A new execution context."""
        context: trt.IExecutionContext | None = self.plan.create_execution_context(self._configuration)
        return context

    def expect_compilation(self) -> None:
        """Keep what the next pass compiles once it is done."""
        if self._cache is not None and self._cache not in self.backend.compiled:
            self.backend.compiled.append(self._cache)

    def _dtype(self, name: str) -> str:
        kind: str = self.plan.get_tensor_dtype(name).name
        return _NUMPY_OF_TENSORRT.get(kind, str(kind))

    def _shape(self, name: str) -> tuple[int, ...]:
        dims = self.plan.get_tensor_shape(name)
        return tuple(dims[axis] for axis in range(len(dims)))

    def bind(self, sizes: AxisSizes, arrays: Mapping[str, DeviceArray]) -> TensorRTBound:
        check_bindings(self, sizes, arrays)
        profile = self._profile(sizes)
        if profile not in self._contexts:
            self._contexts[profile] = TensorRTContext(self, profile)
        return TensorRTBound(
            self._contexts[profile], {name: _device(array) for name, array in arrays.items()}
        )

    def _profile(self, sizes: AxisSizes) -> int:
        """Index of the first optimization profile that admits every input's shape."""
        for profile in range(self.plan.num_optimization_profiles):
            if all(
                self._admits(profile, spec.name, spec.shape(sizes))
                for spec in self.network.inputs
                if spec.dynamic_axes
            ):
                return profile
        wanted = ", ".join(f"{axis}={sizes[axis]}" for axis in self.network.axis_names)
        raise EngineMismatch(f"{self.network.name}: no profile for {wanted}", command=self.backend.rebuild)

    def _admits(self, profile: int, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self.plan.get_tensor_profile_shape(name, profile)
        return len(low) == len(shape) and all(
            low[axis] <= size <= high[axis] for axis, size in enumerate(shape)
        )

    def check_refittable(self, names: Iterable[str]) -> trt.Refitter:
        """The plan's refitter; EngineMismatch where one of `names` cannot be replaced."""
        if self._refitter is None:  # made once: what it prepares does not depend on the weights
            refitter: trt.Refitter = self.backend.trt.Refitter(self.plan, self.backend.logger)
            # Checks conversions and sparsity, of which a strongly typed network has none.
            refitter.weights_validation = False
            self._refitter, self._refittable = refitter, frozenset(refitter.get_all_weights())
        if unknown := sorted(set(names) - self._refittable):
            raise EngineMismatch(
                f"{self.network.name}: not refittable: {', '.join(unknown[:5])}", command=self.backend.rebuild
            )
        return self._refitter

    def refit(self, weights: Mapping[str, Array | DeviceArray]) -> None:
        """All named weights or none: values are set first, and refitting is refused while any is missing."""
        refitter = self.check_refittable(weights)
        # The refitter keeps pointers only.
        kept = {
            name: np.ascontiguousarray(values) if isinstance(values, np.ndarray) else values
            for name, values in weights.items()
        }
        self.backend.synchronize()
        given = []
        try:
            for name, values in kept.items():
                if not refitter.set_named_weights(name, *self._located(values)):
                    raise EngineMismatch(
                        f"{self.network.name}.{name}: shape or type does not fit the engine",
                        command=self.backend.rebuild,
                    )
                given.append(name)
            if missing := refitter.get_missing_weights():
                raise EngineMismatch(
                    f"{self.network.name}: refit also needs {', '.join(missing[:5])}",
                    command=self.backend.rebuild,
                )
            for context in self._contexts.values():
                context.forget_graphs()
            if not refitter.refit_cuda_engine():
                raise IntaglioError(f"{self.network.name}: refit failed; see the log")
        finally:
            for name in given:
                refitter.unset_named_weights(name)

    def joined(self, sizes: Mapping[str, int]) -> Sequence[frozenset[str]]:
        """Asked of a refitter that is given one weight after another and never refits; EngineMismatch where
        the build did not keep one.
        """
        self.check_refittable(sizes)
        refitter = self.backend.trt.Refitter(self.plan, self.backend.logger)
        any_values = np.empty(
            max(sizes.values(), default=0), "float16" if self.precision == "fp16" else "float32"
        )
        group_of: dict[str, frozenset[str]] = {}
        for name in sizes:
            if name not in group_of:
                found = self._needed_with(
                    name, refitter, {one: any_values[:size] for one, size in sizes.items()}
                )
                group = found.union(*(group_of[one] for one in found if one in group_of))
                group_of |= dict.fromkeys(group, group)
        return [group for group in dict.fromkeys(group_of.values()) if len(group) > 1]

    def _needed_with(self, name: str, refitter: trt.Refitter, values: Mapping[str, Array]) -> frozenset[str]:
        """`name` and all that must be given with it, as `refitter` says, which holds nothing before and
        after.
        """
        given: list[str] = []
        wanted = {name}
        try:
            while wanted:
                for one in sorted(wanted):
                    if one not in values:
                        message = f"{self.network.name}: {name} is joined with {one}, whose values the build did not keep"
                        raise EngineMismatch(message, command=self.backend.rebuild)
                    if not refitter.set_named_weights(one, *self._located(values[one])):
                        raise EngineMismatch(
                            f"{self.network.name}.{one}: size or type does not fit the engine",
                            command=self.backend.rebuild,
                        )
                    given.append(one)
                wanted = set(refitter.get_missing_weights()) - set(given)
        finally:
            for one in given:
                refitter.unset_named_weights(one)
        return frozenset(given)

    def _located(self, values: Array | DeviceArray) -> tuple[trt.Weights, Any]:
        """`values` as TensorRT takes them, and where they are."""
        trt = self.backend.trt
        if isinstance(values, np.ndarray):
            return trt.Weights(values), trt.TensorLocation.HOST
        device = _device(values)
        kind = getattr(trt.DataType, _TENSORRT_OF_NUMPY[device.dtype.name])
        return trt.Weights(
            kind, device.address, int(np.prod(device.shape, dtype=np.int64))
        ), trt.TensorLocation.DEVICE

    def close(self) -> None:
        """Give the plan's memory back, also where somebody still has a `Bound`."""
        self.backend.synchronize()
        self.backend.keep_compiled()
        for context in self._contexts.values():
            context.close()
        self._refitter = None
        self._contexts.clear()
        self._configuration = self._cache = None
        del self.plan


class TensorRTContext:
    """One profile's execution context, borrowing the arena."""

    def __init__(self, engine: TensorRTEngine, profile: int) -> None:
        backend = engine.backend
        self.engine = engine
        self.backend = backend
        # Of the largest profile: `set_device_memory` asks for no less, and the arena is the maximum over
        # engines anyway.
        self.size = engine.activation_bytes
        context = engine.make_context()
        if context is None:
            raise Unavailable(
                f"{engine.network.name}: no execution context for profile {profile}; is the card's memory full?"
            )
        self.context = context
        backend.reserve(self.size)
        if not context.set_optimization_profile_async(profile, int(backend.stream)):
            raise IntaglioError(f"{engine.network.name}: profile {profile} refused")
        backend.synchronize()
        # Weak: buffers of a size that is no longer used are freed with the last reference to what is bound to
        # them.
        self.bound: weakref.ref[TensorRTBound] | None = None
        self.all_bound: weakref.WeakSet[TensorRTBound] = weakref.WeakSet()
        self.shapes: set[tuple[tuple[int, ...], ...]] = set()
        """Input shapes seen so far."""
        self.arena_address = 0
        self.generation = 0

    def use(self, bound: TensorRTBound) -> None:
        """Point the context at the arena and at `bound`'s buffers, where it does not yet."""
        arena = self.backend.reserve(self.size)
        if arena.address != self.arena_address:
            self.context.set_device_memory(arena.address, arena.nbytes)
            self.arena_address = arena.address
            self.forget_graphs()
        if self.bound is None or self.bound() is not bound:
            network = self.engine.network
            shapes = tuple(bound.arrays[spec.name].shape for spec in network.inputs)
            if shapes not in self.shapes:
                self.shapes.add(shapes)
                self.engine.expect_compilation()
            for spec in network.inputs:
                if not self.context.set_input_shape(spec.name, bound.arrays[spec.name].shape):
                    raise IntaglioError(
                        f"{network.name}.{spec.name}: shape {list(bound.arrays[spec.name].shape)} refused"
                    )
            for name, array in bound.arrays.items():
                if not self.context.set_tensor_address(name, array.address):
                    raise IntaglioError(f"{network.name}.{name}: address refused")
            self.bound = weakref.ref(bound)

    def forget_graphs(self) -> None:
        """Captured graphs hold addresses and weights of before: capture anew."""
        self.generation += 1

    def enqueue(self) -> None:
        """One pass on the stream."""
        if not self.context.execute_async_v3(int(self.backend.stream)):
            raise IntaglioError(f"{self.engine.network.name}: enqueue failed; see the log")

    def capturable(self) -> bool:
        """Whether a pass may be captured into a CUDA graph; only TensorRT-RTX can say that it may not."""
        return self.backend.name != "tensorrt-rtx" or bool(
            self.context.is_stream_capturable(int(self.backend.stream))
        )

    def close(self) -> None:
        """Give the context's memory back; nothing runs in it any more."""
        for bound in self.all_bound:
            bound.drop_graph()
        del self.context


class TensorRTBound:
    """Buffers of one context; with `cuda_graph`, the pass is captured at its second run and replayed from
    then on.

    A graph saves 2 % of a pass, so a pass that cannot be captured is simply enqueued each time; the log says
    so.
    """

    def __init__(self, context: TensorRTContext, arrays: Mapping[str, CudaArray]) -> None:
        self.arrays = arrays
        self._context = context
        self._graph: Any = None
        self._generation = -1
        self._runs = 0
        self._captures = context.backend.cuda_graph
        context.all_bound.add(self)

    def run(self) -> None:
        context, backend = self._context, self._context.backend
        context.use(self)
        if self._generation != context.generation:
            self.drop_graph()
            self._generation = context.generation
        if self._graph is not None:
            backend.cuda("cudaGraphLaunch", self._graph, backend.stream)
            return
        # The first pass may still allocate and set up, which a capture must not contain.
        if self._captures and self._runs > 0:
            self._capture()
        if self._graph is not None:
            backend.cuda("cudaGraphLaunch", self._graph, backend.stream)
        else:
            context.enqueue()
        self._runs += 1

    def _capture(self) -> None:
        context = self._context
        try:
            if not context.capturable():
                raise IntaglioError("TensorRT says that it cannot be captured")
            self._graph = self._captured(context.enqueue)
        except IntaglioError as error:
            self._captures = False
            log.warning("%s runs without a CUDA graph: %s", context.engine.network.name, error)

    def _captured(self, enqueue: Callable[[], None]) -> Any:
        cuda, stream = self._context.backend.cuda, self._context.backend.stream
        cuda(
            "cudaStreamBeginCapture",
            stream,
            cuda.runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal,
        )
        try:
            enqueue()
        finally:
            graph = cuda("cudaStreamEndCapture", stream)
        executable = cuda("cudaGraphInstantiate", graph, 0)
        cuda("cudaGraphDestroy", graph)
        return executable

    def __del__(self) -> None:
        self.drop_graph()

    def drop_graph(self) -> None:
        """Capture anew; CUDA frees a graph that is still running when it is done."""
        if self._graph is not None:
            self._context.backend.cuda("cudaGraphExecDestroy", self._graph)
        self._graph, self._runs = None, 0


def import_tensorrt(runtime: Literal["tensorrt-rtx", "tensorrt"]) -> Any:
    """The runtime's module, MissingExtra without it; tensorrt-stubs alone leaves an importable `tensorrt`
    with nothing in it.
    """
    name = _MODULES[runtime]
    try:
        module = import_module(name)
    except ImportError as error:
        raise MissingExtra(name, extra="tensorrt") from error
    if not hasattr(module, "Runtime"):
        raise MissingExtra(name, extra="tensorrt")
    return module


@functools.cache
def tensorrt_logger(module: Any) -> Any:
    """The one logger of `tensorrt_rtx` or `tensorrt` in this process: errors to standard output, where the
    library puts them.

    The library's own, never one written in Python: a build logs while it holds the library's lock, and a
    Python logger would then wait for the interpreter's, which another thread may hold while it waits for the
    library's (set_optimization_profile_async does not let go of it): neither would ever go on.
    """
    return module.Logger(module.Logger.ERROR)
