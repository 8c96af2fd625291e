"""The card: arrays in its memory, copies on one stream, the block that activations share, CUDA graphs."""

from __future__ import annotations

import ctypes
import itertools
import logging
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from intaglio.engines.interface import Array, DeviceArray
from intaglio.engines.tensorrt.library import Cuda

__all__ = ["CudaArray", "Device", "cuda_array"]

log = logging.getLogger(__name__)

_ALIGNMENT: Final = 256
"""Bytes; cudaMalloc aligns its own buffers so, and buffers within one allocation need the same."""


class CudaArray:
    """Device memory. An array without `owner` frees its memory; a view keeps its owner alive."""

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        owner: CudaArray | None,
        cuda: Cuda,
    ) -> None:
        self.address = address
        self._shape = shape
        self._dtype = dtype
        self._owner = owner
        self._cuda: Cuda | None = cuda

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self._shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return self.size * self._dtype.itemsize

    def __getitem__(self, row: int) -> CudaArray:
        if not 0 <= row < self._shape[0]:
            raise IndexError(row)
        return self._view(row, self._shape[1:])

    def rows(self, begin: int, end: int) -> CudaArray:
        if not 0 <= begin <= end <= self._shape[0]:
            raise IndexError(f"{begin}:{end}")
        return self._view(begin, (end - begin, *self._shape[1:]))

    def reshaped(self, shape: tuple[int, ...]) -> CudaArray:
        if math.prod(shape) > self.size:
            raise IndexError(f"{list(shape)} of {list(self._shape)}")
        return self._view(0, shape)

    def _view(self, row: int, shape: tuple[int, ...]) -> CudaArray:
        if self._cuda is None:
            raise IndexError("the array is freed")
        row_bytes = int(np.prod(self._shape[1:], dtype=np.int64)) * self._dtype.itemsize
        address = self.address + row * row_bytes
        return CudaArray(address, shape, self._dtype, owner=self._owner or self, cuda=self._cuda)

    def free(self) -> None:
        """Free the memory; nothing enqueued may still use it."""
        if self._owner is None and self._cuda is not None:
            self._cuda.runtime.cudaFree(self.address)
        self._cuda = None

    def __del__(self) -> None:
        self.free()


def cuda_array(array: DeviceArray) -> CudaArray:
    """`array` itself; TypeError where it belongs to another backend."""
    if not isinstance(array, CudaArray):
        raise TypeError(f"not an array of this backend: {type(array).__name__}")
    return array


class Device:
    """One stream of the card, and the memory that engines on it share."""

    def __init__(self, cuda: Cuda, *, cuda_graph: bool, gpu: int) -> None:
        """`gpu` is CUDA's index of the card; `cuda_graph`: whether passes are captured into CUDA graphs."""
        self.cuda = cuda
        self.gpu = gpu
        self.cuda_graph = cuda_graph
        self.use_in_this_thread()
        self.stream: Any = cuda("cudaStreamCreate")
        self.arena: CudaArray | None = None
        """Memory for the activations of whichever engine runs."""

    def use_in_this_thread(self) -> None:
        """Make the card current in this thread: CUDA keeps the current card of each thread, at first 0."""
        self.cuda("cudaSetDevice", self.gpu)

    def allocate(self, shape: tuple[int, ...], dtype: str) -> CudaArray:
        """A buffer of zeros."""
        array = self._allocate(shape, np.dtype(dtype))
        self.cuda("cudaMemsetAsync", array.address, 0, max(array.nbytes, 1), self.stream)
        return array

    def allocate_together(self, shapes: Sequence[tuple[int, ...]], dtype: str) -> list[DeviceArray]:
        """Buffers in one allocation, which is freed with the last of them."""
        kind = np.dtype(dtype)
        sizes = [_aligned(int(np.prod(shape, dtype=np.int64)) * kind.itemsize) for shape in shapes]
        block = self._allocate((max(sum(sizes), 1),), np.dtype("uint8"))
        begins = itertools.accumulate(sizes, initial=block.address)
        return [
            CudaArray(begin, shape, kind, owner=block, cuda=self.cuda)
            for begin, shape in zip(begins, shapes, strict=False)
        ]

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> CudaArray:
        """A buffer of undefined content."""
        size = max(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, 1)
        address = int(self.cuda("cudaMalloc", size))
        return CudaArray(address, shape, dtype, owner=None, cuda=self.cuda)

    def hold(self, values: Array) -> Array:
        """A copy of `values` in pinned host memory."""
        size = max(values.nbytes, 1)
        address = int(self.cuda("cudaHostAlloc", size, 0))
        pinned = (ctypes.c_ubyte * size).from_address(address)
        # Freed with the last view of it; views of views have it as their base.
        weakref.finalize(pinned, self.cuda.runtime.cudaFreeHost, address).atexit = False
        flat = np.ctypeslib.as_array(pinned)[: values.nbytes]
        held: Array = flat.view(values.dtype).reshape(values.shape)
        np.copyto(held, values)
        return held

    def upload(self, target: DeviceArray, source: Array) -> None:
        """Host to card; ValueError where the shapes differ."""
        device = cuda_array(target)
        host = np.ascontiguousarray(source.astype(device.dtype, casting="same_kind", copy=False))
        if host.shape != device.shape:
            raise ValueError(f"upload of {list(host.shape)} into {list(device.shape)}")
        kind = self.cuda.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        # From pageable memory the driver stages the copy before it returns, so `source` is free to change.
        self.cuda("cudaMemcpyAsync", device.address, host.ctypes.data, host.nbytes, kind, self.stream)

    def copy(self, target: DeviceArray, source: DeviceArray) -> None:
        """Card to card; ValueError where shapes or types differ."""
        to = cuda_array(target)
        of = cuda_array(source)
        if (to.shape, to.dtype) != (of.shape, of.dtype):
            raise ValueError(f"copy of {of.dtype}{list(of.shape)} into {to.dtype}{list(to.shape)}")
        kind = self.cuda.runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self.cuda("cudaMemcpyAsync", to.address, of.address, of.nbytes, kind, self.stream)

    def download(self, source: DeviceArray) -> Array:
        """A host copy of `source`; waits for everything enqueued before."""
        device = cuda_array(source)
        host = np.empty(device.shape, device.dtype)
        kind = self.cuda.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.cuda("cudaMemcpyAsync", host.ctypes.data, device.address, device.nbytes, kind, self.stream)
        self.synchronize()
        return host

    def synchronize(self) -> None:
        """Wait for everything enqueued."""
        self.cuda("cudaStreamSynchronize", self.stream)

    def reserve(self, size: int) -> CudaArray:
        """The arena with at least `size` bytes. It may have moved: contexts compare its address each pass."""
        if self.arena is None or self.arena.nbytes < size:
            self.synchronize()
            self._free_arena()
            self.arena = self.allocate((size,), "uint8")
            log.info("activation arena: %d MiB", size >> 20)
        return self.arena

    def capture(self, enqueue: Callable[[], None]) -> Any:
        """A CUDA graph of what `enqueue` enqueues; nothing runs."""
        modes = self.cuda.runtime.cudaStreamCaptureMode
        self.cuda("cudaStreamBeginCapture", self.stream, modes.cudaStreamCaptureModeThreadLocal)
        try:
            enqueue()
        finally:
            graph = self.cuda("cudaStreamEndCapture", self.stream)
        try:
            return self.cuda("cudaGraphInstantiate", graph, 0)
        finally:
            self.cuda("cudaGraphDestroy", graph)

    def launch(self, graph: Any) -> None:
        """Enqueue `graph`."""
        self.cuda("cudaGraphLaunch", graph, self.stream)

    def destroy(self, graph: Any) -> None:
        """Free `graph`; CUDA frees one that still runs when it is done."""
        self.cuda("cudaGraphExecDestroy", graph)

    def close(self) -> None:
        """Wait, then free the arena and the stream; close the engines first."""
        self.synchronize()
        self._free_arena()
        self.cuda("cudaStreamDestroy", self.stream)

    def _free_arena(self) -> None:
        if self.arena is not None:
            self.arena.free()
            self.arena = None


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
