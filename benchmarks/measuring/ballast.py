"""Ballast: a process that takes memory of the first card, so that a large card has no more free than a small
one.

    python -m benchmarks.measuring.ballast FREE_GIB
It makes plain allocations, prints a line, and holds the memory until its input ends. Nothing is written to
the memory.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final, NoReturn

import typer

from benchmarks.measuring.watches import CARD
from intaglio.engines.card import read_card_memory
from intaglio.errors import ConfigError

__all__ = ["ballast"]

_GRAIN: Final = 2 * 2**20
_UNTAKEN: Final = 64 * 2**20
"""What a ballast may leave free beside what it was asked to leave."""


@contextmanager
def ballast(free_gib: float | None) -> Iterator[float | None]:
    """Leave only `free_gib` of the card free while the block runs; gives the GiB that are free then.

    Without a card, or without `free_gib`, nothing is taken and the block gets None.

    Raises:
        ConfigError: the memory cannot be taken.
    """
    if free_gib is None or read_card_memory(CARD) is None:
        yield None
        return
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.measuring.ballast", str(free_gib)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("free "):
            said = line.strip() or "ended without a word"
            raise ConfigError(f"ballast: {said}; is {free_gib:g} GiB of the card free?")
        try:
            yield float(line.split()[1])
        finally:
            process.stdin.close()


def main(free_gib: float) -> None:
    """Hold the ballast."""
    # Imported here because the process that starts this one needs no CUDA.
    runtime: Any = import_module("cuda.bindings.runtime")
    (status,) = runtime.cudaFree(0)  # makes the context now: it takes memory too
    card = read_card_memory(CARD)
    if status != runtime.cudaError_t.cudaSuccess or card is None:
        _fail(f"no card to take memory of: {status}")
    size = card.free - int(free_gib * 2**30)
    if size < _GRAIN:
        _fail(f"only {card.free / 2**30:.2f} GiB are free")
    left = _take(runtime, size)
    card = read_card_memory(CARD)
    if card is None or left > _UNTAKEN:
        _fail(f"the card refused {left} of {size} bytes")
    print(f"free {card.free / 2**30:.3f}", flush=True)
    sys.stdin.read()


def _take(runtime: Any, size: int) -> int:
    """Allocate `size` bytes of the card, in pieces where it refuses the whole; the bytes that it refused.

    What the driver calls free is not always one piece.
    """
    piece = size
    while piece >= _GRAIN and size >= _GRAIN:
        piece = min(piece, size) // _GRAIN * _GRAIN
        status, _address = runtime.cudaMalloc(piece)
        if status == runtime.cudaError_t.cudaSuccess:
            size -= piece
        else:
            piece //= 2
    return size


def _fail(why: str) -> NoReturn:
    print(why, flush=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
