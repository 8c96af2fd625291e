"""Takes memory of the first card until so much is free, and holds it until its input ends: a small card, for
a test on a large one.

    python -m benchmarks.measuring.ballast FREE_GIB
One plain allocation; nothing is written to it. Prints a line when it is in place.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

import typer

from intaglio.engines.card import read_card_memory
from intaglio.errors import ConfigError

_GRAIN: Final = 2 * 2**20


@contextmanager
def ballast(free_gib: float | None) -> Iterator[float | None]:
    """GiB that are free while the block runs; without a card, or without `free_gib`, nothing is taken and it
    is None.
    """
    if free_gib is None or read_card_memory() is None:
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
            raise ConfigError(
                f"ballast: {line.strip() or 'ended without a word'}; is {free_gib:g} GiB of the card free?"
            )
        try:
            yield float(line.split()[1])
        finally:
            process.stdin.close()


def main(free_gib: float) -> None:
    """Hold the ballast."""
    runtime: Any = import_module("cuda.bindings.runtime")  # the parent needs no CUDA

    (status,) = runtime.cudaFree(0)  # the context is made now, and counts
    card = read_card_memory()
    if status != runtime.cudaError_t.cudaSuccess or card is None:
        print(f"no card to take memory of: {status}", flush=True)
        raise typer.Exit(1)
    size = (card.free - int(free_gib * 2**30)) // _GRAIN * _GRAIN
    if size <= 0:
        print(f"only {card.free / 2**30:.2f} GiB are free", flush=True)
        raise typer.Exit(1)
    status, _address = runtime.cudaMalloc(size)
    card = read_card_memory()
    if status != runtime.cudaError_t.cudaSuccess or card is None:
        print(f"cudaMalloc of {size} bytes: {status}", flush=True)
        raise typer.Exit(1)
    print(f"free {card.free / 2**30:.3f}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    typer.run(main)
