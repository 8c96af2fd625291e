"""Names, types and shapes of the weights in an ONNX file, read without the onnx package.

An ONNX file is one protobuf message. The field numbers here are those of onnx.proto3: ModelProto.graph 7,
GraphProto.initializer 5, TensorProto.dims 1, data_type 2, name 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["initializers"]

_GRAPH: Final = 7
_INITIALIZER: Final = 5
_DIMS: Final = 1
_DATA_TYPE: Final = 2
_NAME: Final = 8

_NUMPY_OF_DATA_TYPE: Final = {1: "float32", 2: "uint8", 6: "int32", 7: "int64", 10: "float16"}
"""TensorProto.DataType."""


def initializers(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """(numpy dtype, shape) of every weight in the ONNX file at `path`."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for graph in _messages(memoryview(path.read_bytes()), _GRAPH):
        for tensor in _messages(graph, _INITIALIZER):
            name, dtype, shape = _tensor_header(tensor)
            found[name] = (dtype, shape)
    return found


def _tensor_header(tensor: memoryview) -> tuple[str, str, tuple[int, ...]]:
    """Name, numpy dtype and shape of a TensorProto."""
    name = ""
    kind = 0
    dims: list[int] = []
    for number, value in _fields(tensor):
        if number == _NAME and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif number == _DATA_TYPE and isinstance(value, int):
            kind = value
        elif number == _DIMS and isinstance(value, int):
            dims.append(value)
        elif number == _DIMS and isinstance(value, memoryview):  # packed
            dims += _varints(value)
    return name, _NUMPY_OF_DATA_TYPE.get(kind, f"onnx type {kind}"), tuple(dims)


def _messages(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The messages in field `wanted` of `message`."""
    for number, value in _fields(message):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of a protobuf message's fields.

    A value is an integer, or the bytes of a field that has a length or a fixed size.
    """
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
    """The integer at `position`, and the position after it."""
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
