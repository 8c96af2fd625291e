"""Number, memory, name and driver of the cards that CUDA uses here. `gpu` is CUDA's index of a card.

They come from NVML through ctypes, because a CUDA context would take 500 MiB of the card. NVML numbers every
card of the machine; CUDA numbers those of CUDA_VISIBLE_DEVICES, in an order of its own. The bus address names
the same card to both.
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from intaglio.errors import ConfigError

__all__ = [
    "CardMemory",
    "PeakWatch",
    "card_description",
    "check_gpu",
    "gpu_capability",
    "gpu_count",
    "read_card_memory",
]

_MAJOR: Final = 75
_MINOR: Final = 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""

_EVERY_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class CardMemory:
    """Bytes of the whole card, whoever uses them."""

    total: int
    used: int
    free: int


class _Memory(ctypes.Structure):
    """nvmlMemory_t of nvml.h."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def read_card_memory(gpu: int) -> CardMemory | None:
    """Memory of the card; None where there is no such card or no driver."""
    opened = _open_card(gpu)
    if opened is None:
        return None
    nvml, device = opened
    memory = _Memory()
    if nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)):
        return None
    return CardMemory(total=memory.total, used=memory.used, free=memory.free)


def _open_card(gpu: int) -> tuple[ctypes.CDLL, ctypes.c_void_p] | None:
    """NVML and its handle of the card."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    address = ctypes.create_string_buffer(32)
    device = ctypes.c_void_p()
    # None of these calls makes a context.
    if (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(number), gpu)
        or cuda.cuDeviceGetPCIBusId(address, len(address), number)
    ):
        return None
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(device)):
        return None
    return nvml, device


def card_description(gpu: int) -> dict[str, str] | None:
    """Name and driver of the card; None without one."""
    opened = _open_card(gpu)
    if opened is None:
        return None
    nvml, device = opened
    name = ctypes.create_string_buffer(96)
    driver = ctypes.create_string_buffer(80)
    if nvml.nvmlDeviceGetName(device, name, len(name)) or nvml.nvmlSystemGetDriverVersion(
        driver, len(driver)
    ):
        return None
    return {"name": name.value.decode(), "driver": driver.value.decode()}


class PeakWatch:
    """The largest use of a card's memory while the `with` block ran, sampled fifty times a second."""

    def __init__(self, gpu: int) -> None:
        self._gpu = gpu
        self.before: CardMemory | None = None
        self.peak: int | None = None
        """Bytes in use on the card at the worst moment; None without a card."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def taken(self) -> int | None:
        """Bytes more at the worst moment than when the block was entered."""
        return None if self.peak is None or self.before is None else self.peak - self.before.used

    def __enter__(self) -> Self:
        self.before = read_card_memory(self._gpu)
        if self.before is not None:
            self.peak = self.before.used
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while True:
            now = read_card_memory(self._gpu)
            if now is not None:
                self.peak = max(self.peak or 0, now.used)
            if self._stop.wait(_EVERY_SECONDS):
                return


def gpu_count() -> int:
    """Cards that CUDA sees; 0 where there is no card or no driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def check_gpu(gpu: int, *, field: str = "execution.gpu") -> None:
    """Raise ConfigError where CUDA sees cards, but none with the index `gpu`, which `field` chose."""
    count = gpu_count()
    if 0 < count <= gpu:
        allowed = "0" if count == 1 else f"0 to {count - 1}"
        raise ConfigError(
            f"{field}: {gpu}: no such card, CUDA sees {count} here; allowed: {allowed} "
            "(CUDA_VISIBLE_DEVICES chooses and numbers them)"
        )


def gpu_capability(gpu: int) -> str | None:
    """Compute capability of the card as the driver reports it (`sm89`); None where there is no such card."""
    if gpu >= gpu_count():
        return None
    cuda = ctypes.CDLL("libcuda.so.1")
    device = ctypes.c_int()
    if cuda.cuDeviceGet(ctypes.byref(device), gpu):
        return None
    major = ctypes.c_int()
    minor = ctypes.c_int()
    for number, attribute in ((major, _MAJOR), (minor, _MINOR)):
        if cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device):
            return None
    return f"sm{major.value}{minor.value}"
