"""Two servers on this machine draw the same pictures in turns; what each takes for them.

Processor time (user and system, of every process of the server) counts the work of a server and not the work
of others, so a busy machine changes it far less than seconds on the clock. On a card the work is not the
processor's: there the clock decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import psutil

from intaglio.errors import ConfigError, IntaglioError
from intaglio_client.bench.runs import Asked, Run
from intaglio_client.client import Client

__all__ = ["Measure", "Side", "Turn", "server_process", "take_turns"]

Measure = Literal["cpu", "wall"]
_TRITON: Final = "tritonserver"
_ORDERS: Final = ((0, 1), (1, 0))
"""Which server comes first alternates, so that neither always follows a rest."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two servers."""

    client: Client
    process: psutil.Process | None
    """Its `tritonserver`; None where only the clock is read."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the same requests took on either server, one after the other."""

    seconds: tuple[float, float]
    """Of the first and of the second server, by the measure that was asked for."""
    equal: int
    """How many pictures are the same, byte for byte."""
    pictures: int

    @property
    def ratio(self) -> float:
        """Second over first."""
        return self.seconds[1] / self.seconds[0]


def server_process(url: str) -> psutil.Process:
    """The Triton on this machine that listens at `url`.

    Raises:
        ConfigError: there is none that this user may look at, or another program listens there: what a tunnel
            or a proxy takes says nothing of the server behind it.
    """
    host, _, port = url.rpartition(":")
    for found in psutil.net_connections("tcp"):
        is_there = found.status == psutil.CONN_LISTEN and tuple(found.laddr)[1:] == (int(port),)
        if is_there and found.pid is not None:
            process = psutil.Process(found.pid)
            if process.name() != _TRITON:
                raise ConfigError(
                    f"{process.name()} listens at {host}:{port}, and not {_TRITON}: what it takes is not "
                    "what the server takes; give the server's own address, or take --measure wall"
                )
            return process
    raise ConfigError(
        f"no process of yours listens at {host}:{port} on this machine, so its processor time is unknown; "
        "take --measure wall"
    )


def take_turns(
    sides: tuple[Side, Side], run: Run, turns: int, *, done: Callable[[], None] = lambda: None
) -> Iterator[Turn]:
    """`turns` turns of the requests of `run`; those of the warm-up come first and only once.

    Raises:
        IntaglioError: see `Client.generate`; or a process of a server ended meanwhile.
    """
    for side in sides:
        for asked in run.asked[: run.warm_up]:
            _draw(side.client, asked)
    measured = run.asked[run.warm_up :]
    for turn in range(turns):
        seconds = [0.0, 0.0]
        pictures: list[Sequence[bytes]] = [(), ()]
        for index in _ORDERS[turn % 2]:
            seconds[index], pictures[index] = _taken(sides[index], measured)
        if min(seconds) <= 0:
            raise IntaglioError("a process of a server was replaced while it was measured; run it again")
        equal = sum(one == two for one, two in zip(*pictures, strict=True))
        yield Turn((seconds[0], seconds[1]), equal, len(measured))
        done()


def _taken(side: Side, measured: Sequence[Asked]) -> tuple[float, list[bytes]]:
    before = _now(side)
    pictures = [_draw(side.client, asked) for asked in measured]
    return _now(side) - before, pictures


def _now(side: Side) -> float:
    return time.perf_counter() if side.process is None else _processor_seconds(side.process)


def _processor_seconds(process: psutil.Process) -> float:
    """User and system time of the server and of all processes below it, so far."""
    try:
        times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    except psutil.Error as error:
        raise IntaglioError(f"a process of the server ended while it was measured: {error}") from error
    return float(sum(one.user + one.system for one in times))


def _draw(client: Client, asked: Asked) -> bytes:
    parameters: Any = asked.parameters
    return b"".join(image.data for image in client.generate_batch(asked.prompt, **parameters))
