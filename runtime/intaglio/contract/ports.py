"""Ports of Triton models: their types, and how tensors and scalars are read from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import InvalidRequest

__all__ = [
    "Port",
    "Tensors",
    "TritonType",
    "numpy_type",
    "read_tensors",
    "scalar",
    "shortest_float32",
    "string_tensor",
]

TritonType = Literal["TYPE_STRING", "TYPE_BOOL", "TYPE_INT32", "TYPE_INT64", "TYPE_FP32", "TYPE_UINT8"]
Tensors = Mapping[str, NDArray[Any]]
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
    """One input or output. With `optional` and no `default` the server decides, as `absent` says."""

    name: str
    datatype: TritonType
    dims: tuple[int, ...] = (1,)
    optional: bool = False
    default: int | float | str | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    deployment_range: str = ""
    """What bounds a value where each deployment has its own range, within `minimum` and `maximum`. Then only
    the server, which has the deployment, checks a value, so that no other range is ever stated.
    """
    absent: str = ""
    """What stands for an absent input that has no `default`."""
    example: int | float | str | tuple[float, ...] | None = None
    """A value that is allowed in every deployment, for documentation; an image is described in words."""
    doc: str = ""
    quality: bool = False
    """Whether it says how well and how fast to draw, and not what: then a quality preset and a few-step
    method may set it.
    """

    @property
    def is_scalar(self) -> bool:
        """Whether it is one value."""
        return self.dims == (1,)

    @property
    def allowed(self) -> str:
        """One phrase for error messages and docs."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.deployment_range:
            return self.deployment_range
        if self.minimum is None or self.maximum is None:
            return self.doc
        if self.maximum < 1e9:
            return f"{self.minimum:g} to {self.maximum:g}"
        return f"{int(self.minimum)} to {int(self.maximum)}"  # a seed in full, not as 9.22337e+18

    @property
    def shown_default(self) -> str:
        """What an absent input means, as a reader writes it; empty for what is no optional input."""
        if self.default is None:
            return self.absent
        if self.datatype == "TYPE_BOOL":
            return str(bool(self.default)).lower()
        return str(self.default)

    @property
    def description(self) -> str:
        """`doc`, the default and the allowed values in one line."""
        parts = [self.doc]
        if self.shown_default:
            parts.append(f"default: {self.shown_default}")
        if self.allowed != self.doc:
            parts.append(f"allowed: {self.allowed}")
        return "; ".join(parts)

    def admits(self, value: float | np.integer[Any] | np.floating[Any]) -> bool:
        """Whether `value` is finite and in range."""
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        # Every integer is finite, and a large one has no float that isfinite could judge.
        return bool(low <= value <= high and (isinstance(value, int) or math.isfinite(value)))


def read_tensors(tensors: Tensors, ports: tuple[Port, ...]) -> dict[str, NDArray[Any]]:
    """The tensors that are present, in the order of `ports`; each has the type and shape of its port.

    Raises:
        InvalidRequest: unknown or missing tensor, wrong type, rank or size.
    """
    known = {port.name: port for port in ports}
    for name in tensors:
        if name not in known:
            raise InvalidRequest(name, "unknown input", allowed=", ".join(known))
    found = {}
    for name, port in known.items():
        if name in tensors:
            _check_tensor(tensors[name], port)
            found[name] = tensors[name]
        elif not port.optional:
            raise InvalidRequest(name, "missing", allowed=port.doc or "required")
    return found


def _check_tensor(array: NDArray[Any], port: Port) -> None:
    is_string = port.datatype == "TYPE_STRING" and array.dtype.kind in "OS"
    if array.dtype != numpy_type(port.datatype) and not is_string:
        raise InvalidRequest(port.name, f"type {array.dtype}", allowed=port.datatype.removeprefix("TYPE_"))
    fits = array.ndim == len(port.dims) and all(
        want in (-1, size) for want, size in zip(port.dims, array.shape, strict=True)
    )
    if not fits:
        allowed = f"{list(port.dims)}, -1 any size"
        raise InvalidRequest(port.name, f"shape {list(array.shape)}", allowed=allowed)


def scalar(tensors: Tensors, port: Port, default: Any = None) -> Any:
    """The one value of `port` (bytes for strings), which is in its range; `default` where it is absent.

    The range of a port that has a `deployment_range` is left to whoever has the deployment.

    Raises:
        InvalidRequest: not finite or out of range.
    """
    if port.name not in tensors:
        return default
    value = tensors[port.name].reshape(-1)[0]
    value = value.item() if isinstance(value, np.generic) else value
    judged = isinstance(value, int | float) and not port.deployment_range
    if judged and not port.admits(value):
        raise InvalidRequest(port.name, f"{value} is out of range", allowed=port.allowed)
    return value


def shortest_float32(value: float) -> float:
    """The float with the fewest digits that is the same float32: 7.1, not 7.099999904632568."""
    return float(str(np.float32(value)))


def string_tensor(*values: str | bytes) -> NDArray[Any]:
    """[n] object array of bytes, as Triton's Python backend wants strings."""
    tensor = np.empty(len(values), np.object_)
    tensor[:] = [value.encode() if isinstance(value, str) else value for value in values]
    return tensor
