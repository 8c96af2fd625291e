"""The one interface between the maths and the libraries that run the networks.

    Backend     one device and its one stream: arrays, copies, engines
    Engine      one network, checked against the tensor table; its weights can be replaced
    Bound       an engine with its buffers: bound once, run many times, asynchronous on the backend's stream

Only `download` and `synchronize` wait for the device. One thread uses a backend at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.tensors import AxisSizes, NetworkSpec, Precision, TensorSpec
from intaglio.errors import EngineMismatch

__all__ = [
    "Array",
    "Backend",
    "Bound",
    "DeviceArray",
    "Engine",
    "Refittable",
    "Together",
    "check_bindings",
    "check_tensors",
]

Array = NDArray[Any]


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

    def reshaped(self, shape: tuple[int, ...]) -> DeviceArray:
        """View of the first elements as an array of `shape`; IndexError where there are not so many."""


class Bound(Protocol):
    """An engine with every input and output tied to a buffer."""

    def run(self) -> None:
        """Enqueue one pass; returns before the device has done it."""


class Refittable(Protocol):
    """Weights that can be replaced where they compute."""

    @property
    def precision(self) -> Precision: ...
    def refit(self, weights: Mapping[str, Array | DeviceArray]) -> None:
        """Replace the named weights: all of them or, on an error, none.

        Names are those of ONNX initializers; `load` must have been told of each. Values may lie on the host
        or where the backend computes. They may be freed once this returns. Weights that `joined` groups must
        be given together.
        """

    def joined(self, sizes: Mapping[str, int]) -> Sequence[frozenset[str]]:
        """Groups of weights that `refit` takes only together, because the compiler merged them.

        `sizes` is the number of values of every weight that `load` was told of.
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


class Together(Protocol):
    """What a device does where one small pass does not keep it busy: several passes at the same time."""

    def takes(self, engines: Sequence[Engine]) -> bool:
        """Whether it runs passes of all these engines at the same time. Else nobody needs buffers for it."""

    def run(self, passes: Sequence[Bound]) -> None:
        """Run `passes`, of which none reads what another one writes."""

    def add(self, target: DeviceArray, one: DeviceArray, other: DeviceArray) -> None:
        """`target` = `one` + `other`."""


class Backend(Protocol):
    """A device: memory, one stream, engines."""

    @property
    def name(self) -> str: ...
    @property
    def together(self) -> Together | None:
        """None where passes are best run one after another, as on a card."""

    def load(
        self,
        network: NetworkSpec,
        path: Path,
        *,
        precision: Precision,
        replaceable: Mapping[str, Array] | None = None,
    ) -> Engine:
        """Open the engine file at `path`.

        `replaceable` are the weights that `refit` may replace, with the values that the file contains.

        Raises:
            EngineMismatch: the file does not load here, or its tensors are not the table's.
        """

    def allocate(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """A buffer of zeros."""

    def allocate_together(self, shapes: Sequence[tuple[int, ...]], dtype: str) -> list[DeviceArray]:
        """Buffers in one allocation, freed together; their content is undefined."""

    def hold(self, values: Array) -> Array:
        """A host copy of `values` in memory from which uploads are fastest; nobody may write to it."""

    def upload(self, target: DeviceArray, source: Array) -> None:
        """Host to device; `source` may be changed as soon as this returns, unless it came from `hold`."""

    def copy(self, target: DeviceArray, source: DeviceArray) -> None: ...
    def download(self, source: DeviceArray) -> Array:
        """A host copy of `source` after everything enqueued before; waits."""

    def synchronize(self) -> None: ...
    def use_in_this_thread(self) -> None:
        """Make the device current in this thread, which uses the backend from now on.

        The thread that opened the backend need not call this.
        """

    def close(self) -> None: ...


def check_tensors(
    network: NetworkSpec,
    found: Mapping[str, tuple[str, tuple[Any, ...]]],
    *,
    precision: Precision,
    rebuild: str,
) -> None:
    """Compare an engine's tensors with the table.

    `found` maps a name to (numpy dtype, shape); a dynamic size is -1 or a name.

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
        wanted = spec.numpy_dtype(precision)
        if dtype != wanted:
            raise EngineMismatch(
                f"{network.name}.{name}: engine has {dtype}, table {wanted}", command=rebuild
            )
        if not _fits(spec, shape):
            raise EngineMismatch(
                f"{network.name}.{name}: engine has shape {list(shape)}, table {list(spec.axes)}",
                command=rebuild,
            )


def _fits(spec: TensorSpec, shape: tuple[Any, ...]) -> bool:
    """Whether `shape` has the table's rank and fixed sizes, except where it is dynamic."""
    if len(shape) != len(spec.axes):
        return False
    for axis, size in zip(spec.axes, shape, strict=True):
        if isinstance(axis, int) and isinstance(size, int) and size not in (-1, axis):
            return False
    return True


def check_bindings(engine: Engine, sizes: AxisSizes, arrays: Mapping[str, DeviceArray]) -> None:
    """Check that every tensor of the table has a buffer of its shape and type, and that there are no others.

    Raises:
        ValueError: they differ.
    """
    network = engine.network
    names = {spec.name for spec in network.tensors}
    if names != set(arrays):
        different = ", ".join(sorted(names ^ set(arrays)))
        raise ValueError(f"{network.name}: buffers differ from the table: {different}")
    for spec in network.tensors:
        array = arrays[spec.name]
        shape = spec.shape(sizes)
        dtype = spec.numpy_dtype(engine.precision)
        if array.shape != shape or array.dtype != np.dtype(dtype):
            raise ValueError(
                f"{network.name}.{spec.name}: buffer is {array.dtype}{list(array.shape)}, "
                f"table says {dtype}{list(shape)}"
            )
