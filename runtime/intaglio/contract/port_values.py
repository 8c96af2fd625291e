"""A value as people write it, in Python or in YAML, -> the tensor of a port."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.ports import Port, numpy_type, string_tensor
from intaglio.errors import InvalidRequest
from intaglio.validation_errors import nearest

__all__ = ["tensor_from_value"]


def tensor_from_value(port: Port, value: Any) -> NDArray[Any]:
    """The tensor of one value, or of a list of numbers; InvalidRequest where the table does not allow it."""
    if port.datatype == "TYPE_STRING":
        return _text_tensor(port, value)
    if port.is_scalar:
        return _number_tensor(port, value)
    return _numbers_tensor(port, value)


def _numbers_tensor(port: Port, value: Any) -> NDArray[Any]:
    """The tensor of a list of numbers; the server judges their order."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidRequest(port.name, f"{value!r}", allowed="a list of numbers")
    items = list(value)
    if not items:
        raise InvalidRequest(port.name, "empty", allowed="a list of numbers")
    for index, item in enumerate(items):
        if isinstance(item, bool) or not isinstance(item, int | float | np.integer | np.floating):
            raise InvalidRequest(f"{port.name}[{index}]", f"{type(item).__name__}", allowed="a number")
        if not port.admits(item):
            raise InvalidRequest(f"{port.name}[{index}]", f"{item} is out of range", allowed=port.allowed)
    return np.array(items, numpy_type(port.datatype))


def _number_tensor(port: Port, value: Any) -> NDArray[Any]:
    dtype = numpy_type(port.datatype)
    if dtype.kind == "b":
        if not isinstance(value, bool):
            raise InvalidRequest(port.name, f"{type(value).__name__}", allowed="True or False")
        return np.array([value], dtype)
    integers = (int, np.integer)
    is_integer = dtype.kind == "i"
    kinds = integers if is_integer else (*integers, float, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds):
        kind = "an integer" if is_integer else "a number"
        raise InvalidRequest(port.name, f"{type(value).__name__}", allowed=f"{kind}, {port.allowed}")
    number: float = value.item() if isinstance(value, np.generic) else value
    # The server says what its deployment allows; here such a value must only fit into the tensor.
    fits = _holds(dtype, number) if port.deployment_range else port.admits(number)
    if not fits:
        raise InvalidRequest(port.name, f"{value} is out of range", allowed=port.allowed)
    return np.array([value], dtype)


def _holds(dtype: np.dtype[Any], number: float) -> bool:
    """Whether an integer tensor can hold `number`."""
    range_ = np.iinfo(dtype)
    return bool(range_.min <= number <= range_.max)


def _text_tensor(port: Port, value: Any) -> NDArray[Any]:
    if not isinstance(value, str):
        raise InvalidRequest(port.name, f"{type(value).__name__}", allowed="a string")
    if port.choices and value not in port.choices:
        problem = f"{value!r} is unknown{nearest(value, port.choices)}"
        raise InvalidRequest(port.name, problem, allowed=port.allowed)
    try:
        return string_tensor(value)
    except UnicodeEncodeError as error:
        problem = f"character {error.start} has no UTF-8 form"
        raise InvalidRequest(port.name, problem, allowed="text without lone surrogates") from error
