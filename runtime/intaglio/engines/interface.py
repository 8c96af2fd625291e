"""The one interface between the maths and what runs the networks.

    Backend     one device and its one stream: arrays, copies, engines       OnnxRuntimeBackend | TensorRTBackend
    Engine      one network, checked against the tensor table, refittable; WeightsOfSeveral refits some as one
    Bound       an engine with its buffers: bound once, run many times, asynchronous on the backend's stream

Nothing waits for the device but `download` and `synchronize`. One thread uses a backend at a time.
"""

# ruff: noqa: PLC0415  (a runtime is imported only when a build needs it)

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.tensors import AxisSizes, NetworkSpec, Precision
from intaglio.errors import EngineMismatch

if TYPE_CHECKING:
    pass

__all__ = [
    "Array",
    "Backend",
    "Bound",
    "DeviceArray",
    "Engine",
    "HostCall",
    "Refittable",
    "WeightsOfSeveral",
    "allocate_tensors",
    "check_tensors",
]

Array = NDArray[Any]
_Value = TypeVar("_Value")


class DeviceArray(Protocol):
    """A contiguous array where the backend computes."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, row: int) -> DeviceArray:
        """View of one row of the first axis."""

    def rows(self, begin: int, end: int) -> DeviceArray:
        """View of rows [begin, end) of the first axis."""


class Bound(Protocol):
    """An engine with every input and output tied to a buffer."""

    def run(self) -> None:
        """Enqueue one pass; returns before the device has done it."""


class Refittable(Protocol):
    """Weights that can be replaced where they compute."""

    @property
    def precision(self) -> Precision: ...
    def refit(self, weights: Mapping[str, Array | DeviceArray]) -> None:
        """Replace the named weights (ONNX initializer names), which `load` was told of; all of them or, on an
        error, none.

        Values may lie on the host or where the backend computes; they may be freed once this returns.
        Those that `joined` names together are given together.
        """

    def joined(self, sizes: Mapping[str, int]) -> Sequence[frozenset[str]]:
        """Groups of weights that `refit` takes only whole, because the compiler has put them into one;
        `sizes` are the numbers of values of every weight that `load` was told of.
        """


class Engine(Refittable, Protocol):
    """One network, ready to be bound."""

    @property
    def network(self) -> NetworkSpec: ...
    @property
    def activation_bytes(self) -> int | None:
        """Activation memory of the largest profile; None where the library does not say."""

    def bind(self, sizes: AxisSizes, arrays: Mapping[str, DeviceArray]) -> Bound:
        """Tie every tensor of the table to a buffer.

        Raises:
            EngineMismatch: no profile of the engine admits `sizes`.
            ValueError: a buffer is missing, superfluous, or of another shape or type than the table says.
        """

    def close(self) -> None: ...


class WeightsOfSeveral:
    """A component whose weights lie in several engines, refitted as if they were one."""

    def __init__(self, engines: Mapping[str, Refittable], network_of: Callable[[str], str]) -> None:
        """`engines` by network, all of one precision; `network_of` says which of them has a weight."""
        self._engines = engines
        self._network_of = network_of

    @property
    def precision(self) -> Precision:
        return next(iter(self._engines.values())).precision

    def refit(self, weights: Mapping[str, Array | DeviceArray]) -> None:
        """One engine after another: an error may leave some refitted, so whoever calls must give all values
        again before it serves.
        """
        for network, values in self._by_network(weights).items():
            self._engines[network].refit(values)

    def joined(self, sizes: Mapping[str, int]) -> Sequence[frozenset[str]]:
        return [
            group
            for network, own in self._by_network(sizes).items()
            for group in self._engines[network].joined(own)
        ]

    def _by_network(self, named: Mapping[str, _Value]) -> dict[str, dict[str, _Value]]:
        found: dict[str, dict[str, _Value]] = {}
        for name, value in named.items():
            found.setdefault(self._network_of(name), {})[name] = value
        return found


class Backend(Protocol):
    """A device: memory, one stream, engines."""

    @property
    def name(self) -> str: ...
    def load(
        self,
        network: NetworkSpec,
        path: Path,
        *,
        precision: Precision,
        replaceable: Mapping[str, Array] | None = None,
    ) -> Engine:
        """Open the engine file at `path`; `replaceable` are the values there of the weights that `refit` may
        replace.

        Raises:
            EngineMismatch: not loadable here, or its tensors are not the table's.
        """

    def allocate(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """A buffer of zeros."""

    def allocate_together(self, shapes: Sequence[tuple[int, ...]], dtype: str) -> list[DeviceArray]:
        """Buffers that are taken and given back at once."""

    def hold(self, values: Array) -> Array:
        """A host copy of `values` in memory that is uploaded from fastest; nobody may write to it."""

    def upload(self, target: DeviceArray, source: Array) -> None:
        """Host to device; `source` may be changed as soon as this returns, unless it came from `hold`."""

    def copy(self, target: DeviceArray, source: DeviceArray) -> None: ...
    def download(self, source: DeviceArray) -> Array:
        """A host copy of `source` after everything enqueued before; waits."""

    def synchronize(self) -> None: ...
    def close(self) -> None: ...


def check_tensors(
    network: NetworkSpec,
    found: Mapping[str, tuple[str, tuple[Any, ...]]],
    *,
    precision: Precision,
    rebuild: str,
) -> None:
    """Compare an engine's tensors (name -> (numpy dtype, shape, -1 or a name where dynamic)) with the table.

    Raises:
        EngineMismatch: names, types, ranks or fixed sizes differ.
    """
    expected = {spec.name: spec for spec in network.tensors}
    if missing := [name for name in expected if name not in found]:
        raise EngineMismatch(f"{network.name}: engine lacks {', '.join(missing)}", command=rebuild)
    if extra := [name for name in found if name not in expected]:
        raise EngineMismatch(
            f"{network.name}: engine has tensors the table does not know: {', '.join(extra)}", command=rebuild
        )
    for name, (dtype, shape) in found.items():
        spec = expected[name]
        if dtype != spec.numpy_dtype(precision):
            raise EngineMismatch(
                f"{network.name}.{name}: engine has {dtype}, table {spec.numpy_dtype(precision)}",
                command=rebuild,
            )
        fixed = [
            (axis, size)
            for axis, size in zip(spec.axes, shape, strict=False)
            if isinstance(axis, int) and isinstance(size, int)
        ]
        if len(shape) != len(spec.axes) or any(size not in (-1, axis) for axis, size in fixed):
            raise EngineMismatch(
                f"{network.name}.{name}: engine has shape {list(shape)}, table {list(spec.axes)}",
                command=rebuild,
            )


def check_bindings(engine: Engine, sizes: AxisSizes, arrays: Mapping[str, DeviceArray]) -> None:
    """Every tensor of the table has a buffer of its shape and type, and there are no others; ValueError
    otherwise.
    """
    names = {spec.name for spec in engine.network.tensors}
    if names != set(arrays):
        raise ValueError(
            f"{engine.network.name}: buffers differ from the table: {', '.join(sorted(names ^ set(arrays)))}"
        )
    for spec in engine.network.tensors:
        array, shape, dtype = arrays[spec.name], spec.shape(sizes), spec.numpy_dtype(engine.precision)
        if array.shape != shape or array.dtype != np.dtype(dtype):
            raise ValueError(
                f"{engine.network.name}.{spec.name}: buffer is {array.dtype}{list(array.shape)}, table says {dtype}{list(shape)}"
            )


def allocate_tensors(
    backend: Backend, engine: Engine, sizes: AxisSizes, *, shared: Mapping[str, DeviceArray] | None = None
) -> dict[str, DeviceArray]:
    """A buffer for every input and output of `engine` at `sizes`, but for those in `shared`, which come with
    them.
    """
    found = dict(shared or {})
    for spec in engine.network.tensors:
        if spec.name not in found:
            found[spec.name] = backend.allocate(spec.shape(sizes), spec.numpy_dtype(engine.precision))
    return found


class HostCall:
    """An engine as a function of host arrays, for what runs once an image: text encoders and VAE.

    Buffers are kept for the sizes used last, so a repeated call allocates nothing.
    """

    def __init__(self, backend: Backend, engine: Engine) -> None:
        self._backend = backend
        self._engine = engine
        self._sizes: dict[str, int] | None = None
        self._arrays: dict[str, DeviceArray] = {}
        self._bound: Bound | None = None

    def __call__(self, sizes: AxisSizes, **inputs: Array) -> dict[str, Array]:
        """Outputs by name; `inputs` are cast to the table's types."""
        network = self._engine.network
        wanted = {axis: sizes[axis] for axis in network.axis_names}
        if self._bound is None or wanted != self._sizes:
            self._arrays = allocate_tensors(self._backend, self._engine, wanted)
            self._bound, self._sizes = self._engine.bind(wanted, self._arrays), wanted
        for spec in network.inputs:
            self._backend.upload(self._arrays[spec.name], inputs[spec.name])
        self._bound.run()
        return {spec.name: self._backend.download(self._arrays[spec.name]) for spec in network.outputs}
