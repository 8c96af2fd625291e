"""The servers that draw, each with a few pictures at a time. What one cannot draw, another one does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, cast

from intaglio.errors import (
    Cancelled,
    DeadlineExceeded,
    IntaglioError,
    InvalidRequest,
    QueueFull,
    SwapFailed,
    Unavailable,
)
from intaglio_client.asking import Settings
from intaglio_client.batch.combining import Item, Items
from intaglio_client.batch.schedule import Drawn, Schedule
from intaglio_client.client import Client
from intaglio_client.connections.retries import NO_RETRIES
from intaglio_client.errors import NotServed, ServerError, Unreachable
from intaglio_client.image import Image
from intaglio_client.parameters import Parameters
from intaglio_client.stream import Stream

__all__ = ["DrawingServer", "check_any_left", "drawing"]

_MOST_FAILURES: Final = 3
"""How often a picture may fail on servers that answer."""
_MOST_LOSSES: Final = 10
"""How often the connection may be lost while the same picture is drawn: it may be what ends the server."""
_QUEUE_SECONDS: Final = 1.0
_PROBE_SECONDS: Final = (0.5, 10.0)
"""Between two questions to a lost server whether it is back: at first, and at most."""


class DrawingServer:
    """One server."""

    def __init__(self, url: str, settings: Settings) -> None:
        """Raises InvalidRequest where the address or a setting is wrong."""
        self.url = url
        self.lost_since: float | None = None
        """Since when it cannot be reached; None while it can."""
        self.problem = ""
        """Why it could not be reached, the last time."""
        self._client = Client(url, **cast(Settings, {**settings, "retries": NO_RETRIES}))
        self._deadline = settings.get("deadline")
        self._streams = True
        self._lock = threading.Lock()
        self._open: set[Stream] = set()
        self._closed = False

    def draw(self, item: Item) -> Image:
        """The picture of `item`. Raises what `Client.generate` does."""
        parameters: Parameters = cast(Any, {**item.parameters, "priority": "batch"})
        if self._streams:  # a stream can be cancelled on the server
            try:
                return self._streamed(item.prompt, parameters)
            except NotServed:
                self._streams = False
        return self._client.generate(item.prompt, **parameters)

    def _streamed(self, prompt: str, parameters: Parameters) -> Image:
        stream = self._client.stream(prompt, deadline=self._deadline, **parameters)
        with self._lock:
            if self._closed:
                raise Cancelled("the batch has ended")
            self._open.add(stream)
        try:
            with stream:
                return stream.result()[0]
        finally:
            with self._lock:
                self._open.discard(stream)

    def is_ready(self) -> bool:
        """Whether it answers and would draw now."""
        return self._client.is_ready()

    def lost(self, problem: str) -> None:
        """Note that it cannot be reached."""
        self.problem = problem
        if self.lost_since is None:
            self.lost_since = time.monotonic()

    def found(self) -> None:
        """Note that it can be reached."""
        self.lost_since = None

    def close(self) -> None:
        """Cancel what it draws, and close the connection."""
        with self._lock:
            self._closed = True
            running = list(self._open)
        for stream in running:
            stream.cancel()
        self._client.close()


@contextmanager
def drawing(
    servers: Sequence[DrawingServer], schedule: Schedule, items: Items, *, slots: int
) -> Iterator[None]:
    """While the block runs, each server draws `slots` pictures of the schedule at a time. At its end what is
    being drawn is cancelled on the servers.
    """
    threads = [
        threading.Thread(target=_Slot(server, schedule, items).run, name=f"{server.url}-{slot}", daemon=True)
        for slot in range(slots)
        for server in servers
    ]
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        schedule.close()
        for server in servers:
            server.close()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def check_any_left(servers: Sequence[DrawingServer], *, patience: float) -> None:
    """Raise Unavailable where no server could be reached for `patience` seconds."""
    now = time.monotonic()
    since = [server.lost_since for server in servers]
    if all(one is not None and now - one > patience for one in since):
        problems = "; ".join(dict.fromkeys(server.problem for server in servers))
        raise Unavailable(
            f"no server for {patience:g} s, so the batch stops; run it again to go on: {problems}"
        )


class _Slot:
    """One picture at a time of one server."""

    def __init__(self, server: DrawingServer, schedule: Schedule, items: Items) -> None:
        self._server = server
        self._schedule = schedule
        self._items = items

    def run(self) -> None:
        """Draw until nothing more is drawn."""
        try:
            while (index := self._schedule.take(self._server.url)) is not None:
                self._draw(index)
        except BaseException as error:  # a defect of ours must end the batch, not hang it
            self._schedule.fail(error)

    def _draw(self, index: int) -> None:
        try:
            image = self._server.draw(self._items[index])
        except IntaglioError as error:
            if not self._schedule.is_closed:
                self._after(index, error)
            return
        self._server.found()
        drawn = Drawn(image, self._server.url, datetime.now(UTC).isoformat(timespec="seconds"))
        self._schedule.deliver(index, drawn)

    def _after(self, index: int, error: IntaglioError) -> None:
        """Give the picture back, or end the batch where it will never be drawn."""
        match error:
            case InvalidRequest():
                named = f"picture {index}: {error.field}"
                self._schedule.fail(InvalidRequest(named, error.problem, allowed=error.allowed))
            case QueueFull():
                self._schedule.give_back(index, self._server.url)
                self._schedule.pause(error.retry_after or _QUEUE_SECONDS)
            case Unreachable():
                self._schedule.give_back(index, self._server.url)
                self._wait_for_server(error)
            case SwapFailed():
                self._count(index, error, _MOST_FAILURES)
            case ServerError() | DeadlineExceeded() | Cancelled():
                # A server that died or hangs is no fault of the picture.
                is_ready = self._server.is_ready()
                self._count(index, error, _MOST_FAILURES if is_ready else _MOST_LOSSES)
                if not is_ready:
                    self._wait_for_server(error)
            case Unavailable():
                self._count(index, error, _MOST_LOSSES)
                self._wait_for_server(error)
            case _:
                self._schedule.fail(error)

    def _count(self, index: int, error: IntaglioError, most: int) -> None:
        if self._schedule.failures(index) >= most:
            self._schedule.fail(_named(error, f"picture {index} failed {most} times: {error}"))
        else:
            self._schedule.give_back(index, self._server.url)

    def _wait_for_server(self, error: IntaglioError) -> None:
        self._server.lost(str(error))
        pause, longest = _PROBE_SECONDS
        while not self._schedule.pause(pause):
            if self._server.is_ready():
                self._server.found()
                return
            pause = min(2 * pause, longest)


def _named(error: IntaglioError, message: str) -> IntaglioError:
    """An error of the same kind with another text."""
    kind: type[IntaglioError] = type(error)
    return kind(message)
