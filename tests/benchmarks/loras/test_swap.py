"""Swaps in turns of less memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from benchmarks.loras.swap import staging_turns
from intaglio.errors import SwapFailed

USUAL = 4608 << 20


def test_turns_that_are_refused_do_not_end_the_part() -> None:
    merge: Any = SimpleNamespace(staging_bytes=USUAL)

    def ensure(loras: tuple[Any, ...]) -> float:
        if merge.staging_bytes < 2048 << 20:
            raise SwapFailed("refit also needs others")
        return 0.5 + len(loras)

    switch: Any = SimpleNamespace(ensure=ensure, counts=SimpleNamespace(last_writing=0.25))
    pair: Any = (object(),)
    found = staging_turns(switch, merge, pair)
    assert list(found) == ["4608 MiB", "2048 MiB", "1024 MiB"]
    assert found["2048 MiB"]["seconds"]["median"] == 1.5
    assert found["1024 MiB"] == {"refused": "refit also needs others"}
    assert merge.staging_bytes == USUAL
