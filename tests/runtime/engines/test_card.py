"""The card that is measured is the one CUDA uses, in a machine that has several."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from intaglio.engines import card
from intaglio.engines.card import CardMemory, PeakWatch
from intaglio.errors import ConfigError

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
    """The driver, to which the cards of these bus addresses are visible, in this order."""

    def __init__(self, *addresses: bytes) -> None:
        self.addresses = addresses

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return flags if self.addresses else 100

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.addresses)
        return 0

    def cuDeviceGet(self, number: Any, index: int) -> int:  # noqa: N802
        number._obj.value = index
        return 0 if index < len(self.addresses) else 101

    def cuDeviceGetAttribute(self, value: Any, attribute: int, number: Any) -> int:  # noqa: N802
        """Card 0 is of sm80, card 1 of sm81."""
        value._obj.value = {75: 8, 76: number.value}[attribute]
        return 0

    def cuDeviceGetPCIBusId(self, address: Any, size: int, number: Any) -> int:  # noqa: N802
        assert size == 32
        address.value = self.addresses[number.value]
        return 0


FIRST, SECOND = ADDRESSES


def see(monkeypatch: pytest.MonkeyPatch, *addresses: bytes) -> None:
    libraries = {"libnvidia-ml.so.1": Nvml(), "libcuda.so.1": Cuda(*addresses)}
    monkeypatch.setattr(ctypes, "CDLL", libraries.__getitem__)


@pytest.mark.parametrize(
    ("visible", "gpu", "used"),
    [
        ((FIRST,), 0, 7),
        ((SECOND,), 0, 40),
        ((FIRST, SECOND), 1, 40),
        ((SECOND, FIRST), 1, 7),
        ((FIRST,), 1, None),
        ((), 0, None),
    ],
)
def test_the_card_that_cuda_uses(
    monkeypatch: pytest.MonkeyPatch, visible: tuple[bytes, ...], gpu: int, used: int | None
) -> None:
    see(monkeypatch, *visible)
    found = card.read_card_memory(gpu)
    assert (found and found.used) == (None if used is None else used << 30)


def test_a_card_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, FIRST, SECOND)
    assert [card.gpu_capability(index) for index in (0, 1, 2)] == ["sm80", "sm81", None]
    card.check_gpu(1)
    with pytest.raises(
        ConfigError, match=r"execution\.gpu: 2: no such card, CUDA sees 2 here; allowed: 0 to 1"
    ):
        card.check_gpu(2)
    see(monkeypatch)
    card.check_gpu(2)  # without any card the CPU runs the networks
    assert card.gpu_capability(0) is None


def test_peak_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([4, 6, 9, 5])
    last = [4]

    def reading(gpu: int) -> CardMemory:
        assert gpu == 1
        last[0] = next(readings, last[0])
        return CardMemory(total=16, used=last[0], free=16 - last[0])

    monkeypatch.setattr("intaglio.engines.card.read_card_memory", reading)
    monkeypatch.setattr("intaglio.engines.card._EVERY_SECONDS", 0.001)
    with PeakWatch(1) as watch:
        while last[0] != 5:
            pass
    assert (watch.peak, watch.taken) == (9, 5)
    monkeypatch.setattr("intaglio.engines.card.read_card_memory", lambda gpu: None)
    with PeakWatch(1) as nothing:
        pass
    assert (nothing.peak, nothing.taken) == (None, None)
