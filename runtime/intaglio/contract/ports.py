"""Ports of Triton models: their types, and how tensors and scalars are read from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import InvalidRequest

__all__ = ["Port", "TritonType", "numpy_type", "read_tensors", "scalar", "string_tensor"]

TritonType = Literal["TYPE_STRING", "TYPE_BOOL", "TYPE_INT32", "TYPE_INT64", "TYPE_FP32", "TYPE_UINT8"]


_NUMPY: Final[Mapping[str, Any]] = {
    "TYPE_STRING": np.object_,
    "TYPE_BOOL": np.bool_,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP32": np.float32,
    "TYPE_UINT8": np.uint8,
}


def numpy_type(datatype: TritonType) -> np.dtype[Any]:
    """numpy dtype of a Triton type; strings are object arrays of bytes."""
    return np.dtype(_NUMPY[datatype])


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One input or output. `default` None with `optional` means the server decides (see `doc`)."""

    name: str
    datatype: TritonType
    dims: tuple[int, ...] = (1,)
    optional: bool = False
    default: int | float | str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    doc: str = ""

    @property
    def is_scalar(self) -> bool:
        """Whether it is one value."""
        return self.dims == (1,)

    @property
    def allowed(self) -> str:
        """One phrase for error messages and docs."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.minimum is not None and self.maximum is not None:
            return (
                f"{self.minimum:g} to {self.maximum:g}"
                if self.maximum < 1e9
                else f"{int(self.minimum)} to {int(self.maximum)}"
            )
        return self.doc


Tensors = Mapping[str, NDArray[Any]]


def read_tensors(tensors: Tensors, ports: tuple[Port, ...]) -> dict[str, NDArray[Any]]:
    """The tensors that are there, each with the type and shape of its port.

    Raises:
        InvalidRequest: unknown or missing tensor, wrong type, rank or size.
    """
    known = {port.name: port for port in ports}
    for name in tensors:
        if name not in known:
            raise InvalidRequest(name, "unknown input", allowed=", ".join(known))
    found = {}
    for name, port in known.items():
        if name not in tensors:
            if not port.optional:
                raise InvalidRequest(name, "missing", allowed=port.doc or "required")
            continue
        array = tensors[name]
        expected = numpy_type(port.datatype)
        if array.dtype != expected and not (port.datatype == "TYPE_STRING" and array.dtype.kind in "OS"):
            raise InvalidRequest(name, f"type {array.dtype}", allowed=port.datatype.removeprefix("TYPE_"))
        if array.ndim != len(port.dims) or any(
            want not in (-1, got) for want, got in zip(port.dims, array.shape, strict=True)
        ):
            raise InvalidRequest(
                name, f"shape {list(array.shape)}", allowed=f"{list(port.dims)}, -1 any size"
            )
        found[name] = array
    return found


def scalar(tensors: Tensors, port: Port, default: Any = None) -> Any:
    """The one value of `port` (bytes for strings) in its range, or `default` where it is absent.

    Raises:
        InvalidRequest: not finite or out of range.
    """
    if port.name not in tensors:
        return default
    value = tensors[port.name].reshape(-1)[0]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, int | float):
        low, high = (
            -math.inf if port.minimum is None else port.minimum,
            math.inf if port.maximum is None else port.maximum,
        )
        if not (math.isfinite(value) and low <= value <= high):
            raise InvalidRequest(port.name, f"{value} is out of range", allowed=port.allowed)
    return value


def string_tensor(*values: str | bytes) -> NDArray[Any]:
    """[n] object array of bytes, as Triton's Python backend wants strings."""
    tensor = np.empty(len(values), np.object_)
    tensor[:] = [value.encode() if isinstance(value, str) else value for value in values]
    return tensor
