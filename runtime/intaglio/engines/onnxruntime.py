"""ONNX Runtime on the CPU: for machines without a card, tests and CI.

Buffers are numpy arrays that the session reads and writes in place (I/O binding). A pass is done when `run`
returns.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from intaglio.contract.tensors import AxisSizes, NetworkSpec, Precision, compute_dtype
from intaglio.engines.interface import Array, Bound, DeviceArray, Engine, check_bindings, check_tensors
from intaglio.engines.onnx_file import initializers
from intaglio.errors import EngineMismatch
from intaglio.onnx_runtime import onnx_runtime

if TYPE_CHECKING:
    import onnxruntime  # type: ignore[import-untyped]

__all__ = [
    "OPENED_TWICE",
    "HostArray",
    "OnnxRuntimeBackend",
    "OnnxRuntimeBound",
    "OnnxRuntimeEngine",
    "PassesTogether",
]

_log = logging.getLogger(__name__)
_NUMPY_OF_ONNX: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
}

OPENED_TWICE: Final = 256 << 20
"""Most bytes of weights of which a second copy is made."""


class HostArray:
    """A contiguous numpy array as a `DeviceArray`."""

    def __init__(self, values: Array) -> None:
        self.values = values

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def __getitem__(self, row: int) -> HostArray:
        return HostArray(self.values[row])

    def rows(self, begin: int, end: int) -> HostArray:
        return HostArray(self.values[begin:end])

    def reshaped(self, shape: tuple[int, ...]) -> HostArray:
        size = math.prod(shape)
        if size > self.values.size:
            raise IndexError(f"{list(shape)} of {list(self.shape)}")
        return HostArray(self.values.reshape(-1)[:size].reshape(shape))


def _values(array: DeviceArray) -> Array:
    if not isinstance(array, HostArray):
        raise TypeError(f"not an array of this backend: {type(array).__name__}")
    return array.values


def _host_values(values: Array | DeviceArray) -> Array:
    return values if isinstance(values, np.ndarray) else _values(values)


class OnnxRuntimeBackend:
    """The CPU."""

    name = "onnxruntime"

    def __init__(self, *, threads: int = 0, rebuild: str = "intaglio build configs/NAME.yaml") -> None:
        """`threads` 0 takes as many as this process may use; `rebuild` is the command errors recommend."""
        self.threads = threads or len(os.sched_getaffinity(0))
        self.rebuild = rebuild
        self.together = PassesTogether() if self.threads > 1 else None

    def load(
        self,
        network: NetworkSpec,
        path: Path,
        *,
        precision: Precision,
        replaceable: Mapping[str, Array] | None = None,
    ) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(network, path, precision=precision, backend=self, replaceable=replaceable)

    def allocate(self, shape: tuple[int, ...], dtype: str) -> HostArray:
        return HostArray(np.zeros(shape, dtype))

    def allocate_together(self, shapes: Sequence[tuple[int, ...]], dtype: str) -> list[DeviceArray]:
        return [HostArray(np.empty(shape, dtype)) for shape in shapes]

    def hold(self, values: Array) -> Array:
        return values

    def upload(self, target: DeviceArray, source: Array) -> None:
        np.copyto(_values(target), source, casting="same_kind")

    def copy(self, target: DeviceArray, source: DeviceArray) -> None:
        np.copyto(_values(target), _values(source), casting="no")

    def download(self, source: DeviceArray) -> Array:
        return _values(source).copy()

    def synchronize(self) -> None:
        """Nothing is ever pending."""

    def use_in_this_thread(self) -> None:
        """Every thread may use it."""

    def close(self) -> None:
        """Arrays and sessions are freed with their last reference."""
        if self.together is not None:
            self.together.close()


class PassesTogether:
    """Two passes at a time, each with half of the threads.

    Networks of the miniature's size gain little from a second core. One of its ControlNets takes 0.8 of the
    time that it takes on one core, and two of them, each on a core, take 1.2 of it.
    """

    def __init__(self) -> None:
        self._other = ThreadPoolExecutor(1, thread_name_prefix="pass")

    def takes(self, engines: Sequence[Engine]) -> bool:
        return all(isinstance(engine, OnnxRuntimeEngine) and engine.half is not None for engine in engines)

    def run(self, passes: Sequence[Bound]) -> None:
        for begin in range(0, len(passes), 2):
            match passes[begin : begin + 2]:
                case [OnnxRuntimeBound() as one, OnnxRuntimeBound() as other] if one.halves and other.halves:
                    waiting = self._other.submit(other.run_half)
                    try:
                        one.run_half()
                    finally:
                        waiting.result()
                case alone:
                    for bound in alone:
                        bound.run()

    def add(self, target: DeviceArray, one: DeviceArray, other: DeviceArray) -> None:
        np.add(_values(one), _values(other), out=_values(target))

    def close(self) -> None:
        self._other.shutdown()


class OnnxRuntimeEngine:
    """One ONNX file in one session.

    Replaceable weights live in arrays of this class that the session reads in place (`add_initializer` takes
    no copy), so a refit is a copy of memory. For that the session must not keep rearranged copies of its own.
    So packing is switched off, and with a replaceable kernel the blocked layout of convolutions too. The
    miniature's UNet then takes a fifth more processor time (docs/performance.md).
    """

    activation_bytes = None

    def __init__(
        self,
        network: NetworkSpec,
        path: Path,
        *,
        precision: Precision,
        backend: OnnxRuntimeBackend,
        replaceable: Mapping[str, Array] | None = None,
    ) -> None:
        self.network = network
        self.precision = precision
        self._path = path
        self._backend = backend
        self._stamp = _stamp(path)
        self._live: dict[str, Array] = {}
        if replaceable:
            dtype = compute_dtype(precision)
            known = initializers(path)
            for name, values in replaceable.items():
                own = np.array(values, dtype, order="C")  # a copy that nobody else writes to
                self._check_weight(name, own, known.get(name))
                self._live[name] = own
        self.session = self._open(backend.threads)
        found = {
            item.name: (_NUMPY_OF_ONNX.get(item.type, item.type), tuple(item.shape))
            for item in (*self.session.get_inputs(), *self.session.get_outputs())
        }
        check_tensors(network, found, precision=precision, rebuild=backend.rebuild)

    def _open(self, threads: int) -> onnxruntime.InferenceSession:
        onnxruntime = onnx_runtime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # One session runs at a time: spinning threads of the others would take its cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self._live:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if any(values.ndim == 4 for values in self._live.values()):
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        # Kept: ONNX Runtime reads them for as long as the session lives.
        self._initializers: dict[str, Any] = {}
        for name, values in self._live.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(values)
            self._initializers[name] = value
            options.add_initializer(name, value)
        try:
            return onnxruntime.InferenceSession(self._path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise EngineMismatch(
                f"{self.network.name}: {self._path.name} does not load: {error}",
                command=self._backend.rebuild,
            ) from error

    @cached_property
    def half(self) -> onnxruntime.InferenceSession | None:
        """A session of the same weights with half of the threads, for a pass beside another one. It is opened
        when first needed.

        None for a large network, whose weights would fill the memory twice; for one whose weights are
        replaced; where the file is no longer the one that was opened; and where memory does not suffice.
        """
        large = sum(size for _, size, _ in self._stamp) > OPENED_TWICE
        if large or self._live or self._stamp != _stamp(self._path):
            return None
        try:
            return self._open(self._backend.threads // 2)
        except EngineMismatch as error:  # the file was loaded before, so the network can do without
            _log.warning("%s; its passes run one after another", error)
            return None

    @property
    def live(self) -> Mapping[str, Array]:
        """The replaceable weights as they are now."""
        return self._live

    def _check_weight(self, name: str, values: Array, known: tuple[str, tuple[int, ...]] | None) -> None:
        """Compare `values` with the (dtype, shape) that the engine has."""
        # ONNX Runtime itself ignores an unknown name and reads past a wrong shape.
        if known != (values.dtype.name, values.shape):
            wanted = "no such replaceable weight" if known is None else f"{known[0]}{list(known[1])}"
            raise EngineMismatch(
                f"{self.network.name}.{name}: weight is {values.dtype}{list(values.shape)}, "
                f"engine has {wanted}",
                command=self._backend.rebuild,
            )

    def bind(self, sizes: AxisSizes, arrays: Mapping[str, DeviceArray]) -> OnnxRuntimeBound:
        check_bindings(self, sizes, arrays)
        return OnnxRuntimeBound(self, arrays)

    def refit(self, weights: Mapping[str, Array | DeviceArray]) -> None:
        given = {name: _host_values(values) for name, values in weights.items()}
        for name, values in given.items():
            own = self._live.get(name)
            known = None if own is None else (own.dtype.name, own.shape)
            self._check_weight(name, values, known)
        for name, values in given.items():
            np.copyto(self._live[name], values)

    def joined(self, sizes: Mapping[str, int]) -> Sequence[frozenset[str]]:
        return ()

    def close(self) -> None:
        del self.session
        self.__dict__.pop("half", None)


def _stamp(path: Path) -> list[tuple[int, int, int]]:
    """Inode, size and time of the last change of an ONNX file and of its weights beside it."""
    found = (item.stat() for item in sorted(path.parent.glob(f"{path.name}*")))
    return [(one.st_ino, one.st_size, one.st_mtime_ns) for one in found]


class OnnxRuntimeBound:
    """Buffers tied to the sessions of an engine."""

    def __init__(self, engine: OnnxRuntimeEngine, arrays: Mapping[str, DeviceArray]) -> None:
        # Kept: the binding holds addresses only.
        self._arrays = {name: _values(array) for name, array in arrays.items()}
        self._engine = engine
        self._whole = self._tied(engine.session)
        self._half: Callable[[], None] | None = None

    def _tied(self, session: onnxruntime.InferenceSession) -> Callable[[], None]:
        """A pass of `session` over the buffers."""
        binding = session.io_binding()
        network = self._engine.network
        for spec in network.inputs:
            values = self._arrays[spec.name]
            binding.bind_input(spec.name, "cpu", 0, values.dtype, values.shape, values.ctypes.data)
        for spec in network.outputs:
            values = self._arrays[spec.name]
            binding.bind_output(spec.name, "cpu", 0, values.dtype, values.shape, values.ctypes.data)
        return functools.partial(session.run_with_iobinding, binding)

    def run(self) -> None:
        self._whole()

    @property
    def halves(self) -> bool:
        """Whether `run_half` can run it."""
        return self._engine.half is not None

    def run_half(self) -> None:
        """One pass with half of the threads."""
        if self._half is None:
            assert self._engine.half is not None
            self._half = self._tied(self._engine.half)
        self._half()
