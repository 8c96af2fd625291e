"""Read and write safetensors files with numpy alone. Nothing is copied before a value is read.

A file is 8 bytes with the length of the header (little-endian), the header as JSON (name -> dtype, shape,
data_offsets), and the values. The checks are those of the safetensors library: the tensors cover the values
without gaps and without overlap, and no name occurs twice.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["StoredTensor", "TensorFile", "map_tensor_file", "with_metadata"]

_LARGEST_HEADER: Final = 8 * 2**20
"""Bytes. The format allows 100 MB, which would take gigabytes of memory as JSON; real headers have at most a
few MB.
"""
_MOST_AXES: Final = 32
"""numpy's own limit."""
_SHOWN: Final = 120
"""Characters of a name that an error shows."""
_ITEM_BYTES: Final[Mapping[str, int]] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}
"""Every type that can be stored, and its size."""
_NUMPY: Final[Mapping[str, str]] = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}
"""Types that numpy has too."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """The place of one tensor in its file; offsets count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """The tensors of one file, given its bytes or a memory map of it."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        """Raises ValueError where `data` is not a whole safetensors file; the message says what is wrong."""
        self._data = data
        header, self._start = _header(data)
        self.metadata = _metadata(header.pop("__metadata__", None))
        self.tensors = {name: _stored(name[:_SHOWN], entry) for name, entry in header.items()}
        _check_cover(self.tensors, len(data) - self._start)

    def read(self, name: str) -> NDArray[Any]:
        """The values of `name`: a view of the file, or a float32 copy where numpy lacks the type (bfloat16,
        fp8).

        Raises:
            ValueError: the values are of a type that cannot be read.
        """
        found = self.tensors[name]
        if found.dtype not in _ITEM_BYTES:
            readable = ", ".join(_ITEM_BYTES)
            raise ValueError(
                f"{name} has values of type {found.dtype}; the types that can be read are {readable}"
            )
        count, start = math.prod(found.shape), self._start + found.begin
        if found.dtype == "BF16":
            halves = np.frombuffer(self._data, "<u2", count, start)
            flat: NDArray[Any] = (halves.astype(np.uint32) << 16).view(np.float32)
        elif found.dtype in _FLOATS_OF_8_BITS:
            flat = _FLOATS_OF_8_BITS[found.dtype][np.frombuffer(self._data, np.uint8, count, start)]
        else:
            flat = np.frombuffer(self._data, _NUMPY[found.dtype], count, start)
        return flat.reshape(found.shape)


def map_tensor_file(path: Path) -> TensorFile:
    """The file at `path`; its pages are read when they are needed.

    Raises:
        OSError, ValueError: it cannot be read, or it is not a whole safetensors file.
    """
    with path.open("rb") as file:
        return TensorFile(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def with_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """The file `data` with `metadata` in its header. The same input always gives the same bytes.

    Raises:
        ValueError: as `TensorFile` does.
    """
    TensorFile(data)
    header, start = _header(data)
    header["__metadata__"] = {**_metadata(header.get("__metadata__")), **metadata}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[start:]


def _header(data: bytes | mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header, and where the values begin."""
    size = len(data)
    if size < 8:
        raise ValueError(f"not a safetensors file ({size} bytes)")
    length = struct.unpack("<Q", data[:8])[0]
    if length < 2 or data[8:9] != b"{":
        raise ValueError(f"not a safetensors file ({size} bytes)")
    if length > size - 8:
        raise ValueError(f"cut short: it has {size} bytes, and its header alone should have {8 + length}")
    if length > _LARGEST_HEADER:
        raise ValueError(f"its header has {length} bytes; the most that is read is {_LARGEST_HEADER}")
    try:
        header = json.loads(data[8 : 8 + length].decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is damaged ({_first_words(error)})") from error
    if not isinstance(header, dict):
        raise ValueError("its header is damaged (no JSON object)")
    return header, 8 + length


def _first_words(error: Exception) -> str:
    """What is wrong with the header; Python's own message may quote all of it."""
    match error:
        case RecursionError():
            return "JSON nested too deeply"
        case UnicodeDecodeError():
            return "not UTF-8"
        case json.JSONDecodeError():
            return f"not JSON: {error.msg}"
        case _:
            return str(error)[:200]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _metadata(found: object) -> dict[str, str]:
    """Text by name; the safetensors library reads `null` as no metadata."""
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"its __metadata__ is a {type(found).__name__}; it should be an object of texts")
    for name, value in found.items():
        if not isinstance(value, str):
            raise ValueError(
                f"its metadata {name[:_SHOWN]!r} is a {type(value).__name__}; it should be a text"
            )
    return found


def _stored(name: str, entry: object) -> StoredTensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"its header is damaged ({name} should have dtype, shape and data_offsets)")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str):
        raise ValueError(f"its header is damaged ({name} has no valid dtype)")
    if not _are_sizes(shape) or len(shape) > _MOST_AXES:
        raise ValueError(f"its header is damaged ({name} has no valid shape)")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"its header is damaged ({name} has no valid data_offsets)")
    begin, end = offsets
    if end < begin:
        raise ValueError(f"its header is damaged ({name} ends before it begins)")
    # A type of a later release of the format may stand here, as long as nobody reads its values.
    if dtype in _ITEM_BYTES and end - begin != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise ValueError(f"its header is damaged ({name} has {end - begin} bytes for shape {shape})")
    return StoredTensor(dtype, tuple(shape), begin, end)


def _are_sizes(values: object) -> bool:
    """Whether `values` is a list of whole numbers from 0. Python counts a bool as one; here it is none."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_cover(tensors: Mapping[str, StoredTensor], size: int) -> None:
    """Raise ValueError where the tensors do not cover the `size` bytes of values exactly."""
    covered = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != covered:
            kind = "overlaps another tensor" if tensor.begin < covered else "leaves a gap before it"
            raise ValueError(f"its header is damaged ({name[:_SHOWN]} {kind})")
        covered = tensor.end
    if covered != size:
        raise ValueError(f"it has {size} bytes of values, its header says {covered}: cut short or damaged")


def _floats_of_8_bits(exponent_bits: int, *, infinities: bool) -> NDArray[np.float32]:
    """The value of each of the 256 bytes (arXiv 2209.05433). E4M3 has no infinities, and one NaN a sign."""
    codes = np.arange(256)
    fraction_bits = 7 - exponent_bits
    exponents = codes >> fraction_bits & (1 << exponent_bits) - 1
    fractions = (codes & (1 << fraction_bits) - 1) / (1 << fraction_bits)
    bias = (1 << exponent_bits - 1) - 1
    normal = np.ldexp(1 + fractions, exponents - bias)
    subnormal = np.ldexp(fractions, 1 - bias)
    values = np.where(exponents == 0, subnormal, normal)
    if infinities:
        special = np.where(fractions == 0, np.inf, np.nan)
        values = np.where(exponents == (1 << exponent_bits) - 1, special, values)
    else:
        values = np.where(codes & 0x7F == 0x7F, np.nan, values)
    return np.where(codes & 0x80 != 0, -values, values).astype(np.float32)


_FLOATS_OF_8_BITS: Final[Mapping[str, NDArray[np.float32]]] = {
    "F8_E4M3": _floats_of_8_bits(4, infinities=False),
    "F8_E5M2": _floats_of_8_bits(5, infinities=True),
}
