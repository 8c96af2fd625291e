"""The card that is measured is the one CUDA uses, in a machine that has several."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from intaglio.engines import card
from intaglio.engines.card import CardMemory, PeakWatch

ADDRESSES = {b"0000:1A:00.0": 7, b"0000:9D:00.0": 40}
"""GiB used of each card, by bus address."""


class Nvml:
    """NVML of two cards."""

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, address: Any, device: Any) -> int:  # noqa: N802
        device._obj.value = ADDRESSES[address.value]
        return 0

    def nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> int:  # noqa: N802
        found = memory._obj
        found.total, found.used, found.free = 141 << 30, device.value << 30, (141 - device.value) << 30
        return 0


class Cuda:
    """The driver, to which one card is visible."""

    def __init__(self, address: bytes | None) -> None:
        self.address = address

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return 100 if self.address is None else flags

    def cuDeviceGet(self, number: Any, index: int) -> int:  # noqa: N802
        number._obj.value = index
        return 0

    def cuDeviceGetPCIBusId(self, address: Any, size: int, number: Any) -> int:  # noqa: N802
        assert self.address is not None
        assert (size, number.value) == (32, 0)
        address.value = self.address
        return 0


@pytest.mark.parametrize(("address", "used"), [(b"0000:1A:00.0", 7), (b"0000:9D:00.0", 40), (None, None)])
def test_the_card_that_cuda_uses(
    monkeypatch: pytest.MonkeyPatch, address: bytes | None, used: int | None
) -> None:
    libraries = {"libnvidia-ml.so.1": Nvml(), "libcuda.so.1": Cuda(address)}
    monkeypatch.setattr(ctypes, "CDLL", libraries.__getitem__)
    found = card.read_card_memory()
    assert (found and found.used) == (None if used is None else used << 30)


def test_peak_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([4, 6, 9, 5])
    last = [4]

    def reading() -> CardMemory:
        last[0] = next(readings, last[0])
        return CardMemory(total=16, used=last[0], free=16 - last[0])

    monkeypatch.setattr("intaglio.engines.card.read_card_memory", reading)
    monkeypatch.setattr("intaglio.engines.card._EVERY_SECONDS", 0.001)
    with PeakWatch() as watch:
        while last[0] != 5:
            pass
    assert (watch.peak, watch.taken) == (9, 5)
    monkeypatch.setattr("intaglio.engines.card.read_card_memory", lambda: None)
    with PeakWatch() as nothing:
        pass
    assert (nothing.peak, nothing.taken) == (None, None)
