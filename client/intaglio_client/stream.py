"""The events of one request, as they come. `async_stream.py` is alike, for asyncio."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from intaglio.errors import Cancelled, Unavailable
from intaglio_client.asking import Asking
from intaglio_client.connections.requests import Request
from intaglio_client.events import Event, Result
from intaglio_client.image import Image

__all__ = ["Stream"]


class Stream:
    """An iterator of `Queued`, `Progress`, `Preview` and, as the last event, `Result`.

    The first `next` sends the request. Where the request is sent again, the steps begin again. Leaving the
    `with` block before the result cancels the request on the server, and so does dropping the stream.
    """

    def __init__(self, asking: Asking, request: Request, stub: Callable[[str], Any]) -> None:
        self._asking = asking
        self._running = _Running()
        # Without a reference to the stream: a stream that nobody holds any more must end immediately.
        self._events = _events(asking, request, stub, self._running)
        self._result: Result | None = None
        self.request_id = request.id
        """The id that the request has in the server's log and traces."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        self.cancel()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """The next event, as soon as it comes.

        Raises:
            StopIteration: the result was the last event.
            Cancelled: `cancel` was called.
            IntaglioError: what `Client.generate` raises.
        """
        try:
            event = next(self._events)
        except Unavailable as error:
            raise self._asking.explained(error) from error.__cause__
        if isinstance(event, Result):
            self._result = event
        return event

    def cancel(self) -> None:
        """Stop the request on the server, within one slice of steps. Any thread may call this, at any time.
        After the result it does nothing.
        """
        self._running.cancel()

    def result(self) -> tuple[Image, ...]:
        """The images. Events that come before them are dropped. Raises what `next` does, and Cancelled where
        the stream has ended without images before.
        """
        for _ in self:
            pass
        if self._result is None:
            raise Cancelled("this stream has ended without images")
        return self._result.images


class _Running:
    """The call that runs now, if one does, and whether it shall stop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._call: Any = None
        self._cancelled = threading.Event()

    def begin(self, call: Any) -> None:
        with self._lock:
            self._call = call
            if self._cancelled.is_set():
                call.cancel()

    def end(self) -> None:
        with self._lock:
            self._call = None

    def cancel(self) -> None:
        with self._lock:
            self._cancelled.set()
            if self._call is not None:
                self._call.cancel()

    def wait(self, seconds: float) -> None:
        """Wait, at most until it is cancelled; Cancelled where it is."""
        if self._cancelled.wait(seconds):
            raise Cancelled("cancelled by the caller")


def _events(
    asking: Asking, request: Request, stub: Callable[[str], Any], running: _Running
) -> Iterator[Event]:
    """The events, from as many attempts as are allowed."""
    running.wait(0.0)
    for attempt in asking.attempts(request):
        with attempt:
            call = stub(attempt.endpoint.url).ModelStreamInfer(
                iter([attempt.message]), metadata=asking.metadata(request), timeout=attempt.timeout
            )
            running.begin(call)
            try:
                for response in call:
                    event = attempt.event(response)
                    if isinstance(event, Result):
                        _read_to_end(call)
                        running.end()
                        yield event
                        return
                    if event is not None:
                        yield event
            finally:
                running.end()
                call.cancel()
            raise attempt.ended()
        running.wait(attempt.pause)


def _read_to_end(call: Any) -> None:
    """Read what comes after the result: a call that is dropped before its end counts as cancelled."""
    with contextlib.suppress(grpc.RpcError):
        for _ in call:
            pass
