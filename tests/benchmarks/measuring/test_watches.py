"""The most memory that something took."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.measuring.watches import HostWatch, free_before_mib, host_peak_mib, peak_mib

SIZE_MIB = 100


def test_a_process_says_what_memory_was_its_own() -> None:
    with HostWatch() as host:
        taken = np.ones(SIZE_MIB << 17)
        time.sleep(0.6)
        del taken
    assert SIZE_MIB < host.kib >> 10 <= host_peak_mib()


def test_card_memory_is_in_mib_and_none_without_a_card() -> None:
    watch: Any = SimpleNamespace(taken=3 << 20, before=SimpleNamespace(free=5 << 20))
    assert (peak_mib(watch), free_before_mib(watch)) == (3, 5)
    without: Any = SimpleNamespace(taken=None, before=None)
    assert (peak_mib(without), free_before_mib(without)) == (None, None)
