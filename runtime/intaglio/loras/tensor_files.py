"""safetensors in numpy: header, checks, values; no torch, and nothing is copied before a value is read.

Format: 8 bytes length of the header (little-endian), the header as JSON (name -> dtype, shape, data_offsets),
the values.
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

__all__ = ["StoredTensor", "TensorFile", "map_tensor_file"]

_LARGEST_HEADER: Final = 100_000_000
"""Bytes; the format's own limit."""
_NUMPY: Final = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "U8": "u1",
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor's place in its file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """The tensors of one file's bytes, or of a mapping of it."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        """Raises ValueError where `data` is not a whole safetensors file; the text says what is wrong with
        it.
        """
        self._data = data
        self.tensors, self.metadata, self._start = _header(data)

    def read(self, name: str) -> NDArray[Any]:
        """Values of `name` in their stored type, a view of the file; bfloat16 as a float32 copy."""
        found = self.tensors[name]
        flat = np.frombuffer(
            self._data, _NUMPY[found.dtype], math.prod(found.shape), self._start + found.begin
        )
        if found.dtype == "BF16":
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.reshape(found.shape)


def map_tensor_file(path: Path) -> TensorFile:
    """The file at `path`, its pages read as they are needed.

    Raises:
        OSError, ValueError: not readable, not a whole safetensors file.
    """
    with path.open("rb") as file:
        return TensorFile(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _header(data: bytes | mmap.mmap) -> tuple[dict[str, StoredTensor], dict[str, str], int]:
    size = len(data)
    length = struct.unpack("<Q", data[:8])[0] if size >= 8 else 0
    if not 2 <= length <= _LARGEST_HEADER:
        raise ValueError(f"not a safetensors file ({size} bytes)")
    if length > size - 8:
        raise ValueError(f"cut short: {size} bytes, its header alone has {8 + length}")
    try:
        header = json.loads(data[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        tensors = {name: _stored(entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("its safetensors header is damaged") from error
    expected = 8 + length + max((tensor.end for tensor in tensors.values()), default=0)
    if expected != size:
        raise ValueError(f"{size} bytes, its header says {expected}: cut short or damaged")
    return tensors, {str(name): str(value) for name, value in metadata.items()}, 8 + length


def _stored(entry: Mapping[str, Any]) -> StoredTensor:
    begin, end = entry["data_offsets"]
    dtype, shape = entry["dtype"], tuple(int(size) for size in entry["shape"])
    if dtype not in _NUMPY or min(shape, default=0) < 0 or begin < 0:
        raise ValueError(f"type {dtype}, shape {shape}")
    if end - begin != math.prod(shape) * np.dtype(_NUMPY[dtype]).itemsize:
        raise ValueError(f"{end - begin} bytes for shape {shape}")
    return StoredTensor(dtype, shape, begin, end)
