"""The device without a card: views, what is freed when, sizes of allocations, refused copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intaglio.engines.onnxruntime import HostArray
from intaglio.engines.tensorrt.device import CudaArray, Device, cuda_array

from .fakes import Cuda


@pytest.fixture
def cuda() -> Any:
    return Cuda()


@pytest.fixture
def device(cuda: Any) -> Device:
    return Device(cuda, cuda_graph=False, gpu=0)


def test_the_card_is_chosen_before_anything_is_made_on_it(cuda: Any) -> None:
    device = Device(cuda, cuda_graph=False, gpu=3)
    assert (cuda.calls, cuda.card) == (["cudaSetDevice", "cudaStreamCreate"], 3)
    cuda.card = 0  # that of another thread
    device.use_in_this_thread()
    assert cuda.card == 3


def test_a_row_of_an_array_keeps_the_whole_alive(cuda: Any) -> None:
    whole = CudaArray(0x100, (3, 4), np.dtype("float16"), owner=None, cuda=cuda)
    row = whole[2]
    del whole
    assert (row.address, row.shape, cuda.free) == (0x100 + 2 * 8, (4,), [])
    del row
    assert cuda.free == [0x100]


def test_rows_are_a_view_of_some_rows(cuda: Any) -> None:
    whole = CudaArray(0x100, (3, 4), np.dtype("float32"), owner=None, cuda=cuda)
    some = whole.rows(1, 3)
    assert (some.address, some.shape, some.nbytes) == (0x100 + 16, (2, 4), 32)
    for outside in (lambda: whole[3], lambda: whole[-1], lambda: whole.rows(2, 4), lambda: whole.rows(2, 1)):
        with pytest.raises(IndexError):
            outside()


def test_the_beginning_of_an_array_has_any_shape(cuda: Any) -> None:
    whole = CudaArray(0x100, (12,), np.dtype("float32"), owner=None, cuda=cuda)
    part = whole.reshaped((2, 5))
    assert (part.address, part.shape, part.nbytes) == (0x100, (2, 5), 40)
    with pytest.raises(IndexError):
        whole.reshaped((13,))
    del whole
    assert cuda.free == []


def test_a_freed_array_has_no_rows(cuda: Any) -> None:
    whole = CudaArray(0x100, (3, 4), np.dtype("float32"), owner=None, cuda=cuda)
    whole.free()
    with pytest.raises(IndexError, match="freed"):
        whole[0]
    del whole
    assert cuda.free == [0x100], "freed once"


def test_buffers_allocated_together_are_aligned_and_freed_together(device: Device, cuda: Any) -> None:
    first, second = map(cuda_array, device.allocate_together([(3,), (5, 2)], "float16"))
    assert cuda.calls.count("cudaMalloc") == 1
    assert second.address - first.address == 256
    block = first.address
    del first
    assert cuda.free == []
    del second
    assert cuda.free == [block]


def test_the_arena_only_grows(device: Device, cuda: Any) -> None:
    first = device.reserve(1000)
    assert device.reserve(10) is first
    address = first.address
    assert device.reserve(2000).nbytes == 2000
    assert cuda.free == [address]
    device.close()
    assert device.arena is None
    assert cuda.calls[-1] == "cudaStreamDestroy"


def test_copies_of_other_shapes_or_types_are_refused(device: Device) -> None:
    target = device.allocate((2, 3), "float16")
    with pytest.raises(ValueError, match=r"upload of \[3\] into \[2, 3\]"):
        device.upload(target, np.zeros(3, np.float16))
    with pytest.raises(TypeError, match="same_kind"):
        device.upload(device.allocate((3,), "int64"), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"copy of float32\[2, 3\] into float16\[2, 3\]"):
        device.copy(target, device.allocate((2, 3), "float32"))


def test_an_array_of_another_backend_is_refused(device: Device) -> None:
    with pytest.raises(TypeError, match="not an array of this backend: HostArray"):
        device.download(HostArray(np.zeros(3)))


def test_a_capture_ends_also_when_the_pass_fails(device: Device, cuda: Any) -> None:
    def fail() -> None:
        raise RuntimeError("no pass")

    with pytest.raises(RuntimeError, match="no pass"):
        device.capture(fail)
    assert cuda.calls[-2:] == ["cudaStreamBeginCapture", "cudaStreamEndCapture"]
