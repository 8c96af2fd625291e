"""Callers who ask a proxy for small pictures, each with an id, a seed and a set of LoRAs."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from intaglio_client import Client

__all__ = ["CALLERS", "REQUESTS", "SETS", "SMALL", "Load", "asking"]

REQUESTS: Final = 500
CALLERS: Final = 6
SMALL: Final[Any] = {"width": 192, "height": 256, "steps": 1, "guidance_scale": 1.0}
SETS: Final = ((), (("night", 1.0),), (("mara", 1.0),), (("pencil", 0.8), ("mara", 1.0)))


@dataclass
class Load:
    """Callers who ask one small picture after another, each with a seed of its own."""

    url: str
    seconds: list[float] = field(default_factory=list)
    pictures: dict[int, bytes] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    """Id of a request -> its seed."""
    problems: list[str] = field(default_factory=list)
    least: float = math.inf
    """Callers stop after that many requests."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _next: int = 0

    def caller(self) -> None:
        with Client(self.url, deadline=240) as client:
            while True:
                with self._lock:
                    if self._next >= self.least:
                        return
                    seed = self._next
                    self._next += 1
                self._ask(client, seed)

    def _ask(self, client: Client, seed: int) -> None:
        asked: Any = SMALL | {"loras": SETS[seed % len(SETS)], "seed": seed}
        began = time.monotonic()
        try:
            if seed % 5:
                image = client.generate("a person in a room", **asked)
            else:
                (image,) = client.stream("a person in a room", **asked).result()
        except Exception as error:
            self.problems.append(f"{seed}: {error!r}")
            return
        with self._lock:
            self.seconds.append(time.monotonic() - began)
            assert seed not in self.pictures
            self.pictures[seed] = image.data
            self.ids[image.request_id] = seed


@contextmanager
def asking(load: Load, pool: ThreadPoolExecutor) -> Iterator[None]:
    """Callers, who ask until the block has ended and each of REQUESTS pictures is there."""
    callers = [pool.submit(load.caller) for _ in range(CALLERS)]
    try:
        yield
        load.least = REQUESTS
        for one in callers:
            one.result()
    finally:
        load.least = 0
