"""ONNX Runtime on the CPU: the embedded default, tests and CI.

Buffers are numpy arrays that the session reads and writes in place through I/O binding; a pass is done when `run` returns.
"""

# ruff: noqa: PLC0415  (onnxruntime is an extra)

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from intaglio.engine import Array, DeviceArray, check_bindings, check_tensors
from intaglio.errors import EngineMismatch, MissingExtra
from intaglio.tensors import AxisSizes, NetworkSpec, Precision

if TYPE_CHECKING:
    import onnxruntime  # type: ignore[import-untyped]

__all__ = ["HostArray", "OnnxRuntimeBackend", "OnnxRuntimeBound", "OnnxRuntimeEngine"]

_NUMPY_OF_ONNX: Final = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
}
_NUMPY_OF_ONNX_KIND: Final = {1: "float32", 2: "uint8", 6: "int32", 7: "int64", 10: "float16"}
"""TensorProto.DataType."""


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


def _values(array: DeviceArray) -> Array:
    if not isinstance(array, HostArray):
        raise TypeError(f"not an array of this backend: {type(array).__name__}")
    return array.values


class OnnxRuntimeBackend:
    """The CPU. `threads` 0 takes the number that this process may use."""

    name = "onnxruntime"

    def __init__(self, *, threads: int = 0, rebuild: str = "intaglio build configs/NAME.yaml") -> None:
        self.threads = threads or len(os.sched_getaffinity(0))
        self.rebuild = rebuild

    def load(self, network: NetworkSpec, path: Path, *, precision: Precision) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(network, path, precision=precision, backend=self)

    def allocate(self, shape: tuple[int, ...], dtype: str) -> HostArray:
        return HostArray(np.zeros(shape, dtype))

    def upload(self, target: DeviceArray, source: Array) -> None:
        np.copyto(_values(target), source, casting="same_kind")

    def copy(self, target: DeviceArray, source: DeviceArray) -> None:
        np.copyto(_values(target), _values(source), casting="no")

    def download(self, source: DeviceArray) -> Array:
        return _values(source).copy()

    def synchronize(self) -> None:
        """Nothing is ever pending."""

    def close(self) -> None:
        """Arrays and sessions are freed with their last reference."""


class OnnxRuntimeEngine:
    """One ONNX file in one session."""

    activation_bytes = None

    def __init__(self, network: NetworkSpec, path: Path, *, precision: Precision, backend: OnnxRuntimeBackend) -> None:
        self.network = network
        self.precision = precision
        self._path = path
        self._backend = backend
        self._overrides: dict[str, Array] = {}
        self.session = self._open({})
        found = {
            item.name: (_numpy_name(item.type), tuple(item.shape)) for item in (*self.session.get_inputs(), *self.session.get_outputs())
        }
        check_tensors(network, found, precision=precision, rebuild=backend.rebuild)

    def _open(self, overrides: Mapping[str, Array]) -> onnxruntime.InferenceSession:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("onnxruntime", extra="serve") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._backend.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # One session runs at a time: threads of the others that spin would take its cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in overrides.items()}
        for name, value in values.items():
            options.add_initializer(name, value)
        try:
            session = onnxruntime.InferenceSession(self._path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise EngineMismatch(f"{self.network.name}: {self._path.name} does not load: {error}", command=self._backend.rebuild) from error
        self._initializers = values  # ONNX Runtime reads them for as long as the session lives
        return session

    def bind(self, sizes: AxisSizes, arrays: Mapping[str, DeviceArray]) -> OnnxRuntimeBound:
        check_bindings(self, sizes, arrays)
        return OnnxRuntimeBound(self, arrays)

    def refit(self, weights: Mapping[str, Array]) -> None:
        """Opens a second session with `weights` in place of the file's and changes over; later calls build on earlier ones.

        ONNX Runtime itself ignores an unknown name and reads past a wrong shape, so both are checked here.
        """
        known = initializers(self._path)
        for name, values in weights.items():
            if known.get(name) != (values.dtype.name, values.shape):
                dtype, shape = known.get(name, ("no such weight", ()))
                wanted = f"{dtype}{list(shape)}" if name in known else dtype
                raise EngineMismatch(
                    f"{self.network.name}.{name}: weight is {values.dtype}{list(values.shape)}, engine has {wanted}",
                    command=self._backend.rebuild,
                )
        overrides = self._overrides | {name: np.ascontiguousarray(values) for name, values in weights.items()}
        self.session, self._overrides = self._open(overrides), overrides

    def close(self) -> None:
        del self.session


class OnnxRuntimeBound:
    """Buffers tied to a session; after a refit, to the new session."""

    def __init__(self, engine: OnnxRuntimeEngine, arrays: Mapping[str, DeviceArray]) -> None:
        self._engine = engine
        self._arrays = {name: _values(array) for name, array in arrays.items()}
        self._session: onnxruntime.InferenceSession | None = None
        self._binding: Any = None

    def run(self) -> None:
        session = self._engine.session
        if session is not self._session:
            self._bind(session)
        session.run_with_iobinding(self._binding)

    def _bind(self, session: onnxruntime.InferenceSession) -> None:
        binding = session.io_binding()
        for spec in self._engine.network.inputs:
            values = self._arrays[spec.name]
            binding.bind_input(spec.name, "cpu", 0, values.dtype, values.shape, values.ctypes.data)
        for spec in self._engine.network.outputs:
            values = self._arrays[spec.name]
            binding.bind_output(spec.name, "cpu", 0, values.dtype, values.shape, values.ctypes.data)
        self._session, self._binding = session, binding


def _numpy_name(onnx_type: str) -> str:
    return _NUMPY_OF_ONNX.get(onnx_type, onnx_type)


def initializers(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """(numpy dtype, shape) of every weight of an ONNX file, without the onnx package.

    Field numbers are those of onnx.proto3: ModelProto.graph 7, GraphProto.initializer 5, TensorProto.dims 1, data_type 2, name 8.
    """
    found = {}
    data = memoryview(path.read_bytes())
    for graph in (value for number, value in _fields(data) if number == 7 and isinstance(value, memoryview)):
        for tensor in (value for number, value in _fields(graph) if number == 5 and isinstance(value, memoryview)):
            name, kind, dims = "", 0, []
            for number, value in _fields(tensor):
                if number == 8 and isinstance(value, memoryview):
                    name = bytes(value).decode()
                elif number == 2 and isinstance(value, int):
                    kind = value
                elif number == 1:
                    dims += [value] if isinstance(value, int) else list(_varints(value))
            found[name] = (_NUMPY_OF_ONNX_KIND.get(kind, f"onnx type {kind}"), tuple(dims))
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of a protobuf message's fields; values are integers or the bytes of what has a length or is fixed."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        match tag & 7:
            case 0:
                value, position = _varint(message, position)
                yield tag >> 3, value
                continue
            case 2:
                size, position = _varint(message, position)
            case 1:
                size = 8
            case 5:
                size = 4
            case wire:
                raise ValueError(f"not a protobuf message: wire type {wire}")
        yield tag >> 3, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _varints(packed: memoryview) -> Iterator[int]:
    position = 0
    while position < len(packed):
        value, position = _varint(packed, position)
        yield value
