"""The most memory that something took: of the card, and of this process on the host."""

from __future__ import annotations

import resource
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from intaglio.engines.card import PeakWatch

__all__ = ["CARD", "HostWatch", "free_before_mib", "host_peak_mib", "peak_mib"]

CARD: Final = 0
"""CUDA's index of the card that every benchmark measures. CUDA_VISIBLE_DEVICES chooses which one that is."""
_EVERY_SECONDS: Final = 0.25
_STATUS: Final = Path("/proc/self/status")


class HostWatch:
    """The most memory of its own that this process held while the `with` block ran.

    `ru_maxrss` also counts pages of mapped files, which the kernel takes back whenever it needs them. This
    does not.
    """

    def __init__(self) -> None:
        self.kib = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="host memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            self.kib = max(self.kib, _own_kib())


def _own_kib() -> int:
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == "RssAnon":
            return int(value.split()[0])
    raise OSError(f"{_STATUS} names no RssAnon; Linux 4.5 and later do")


def host_peak_mib() -> int:
    """The most memory of this process so far, pages of mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def peak_mib(watch: PeakWatch) -> int | None:
    """MiB of the card that were taken while the block ran; None without a card."""
    return None if watch.taken is None else watch.taken >> 20


def free_before_mib(watch: PeakWatch) -> int | None:
    """MiB of the card that were free when the block began; None without a card."""
    return None if watch.before is None else watch.before.free >> 20
