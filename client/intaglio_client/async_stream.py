"""The events of one request, as they come, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

import grpc

from intaglio.errors import Cancelled, Unavailable
from intaglio_client.asking import Asking
from intaglio_client.connections.async_calls import cancellation
from intaglio_client.connections.requests import Request
from intaglio_client.errors import CLOSED
from intaglio_client.events import Event, Result
from intaglio_client.image import Image

__all__ = ["AsyncStream"]


class AsyncStream:
    """`intaglio_client.Stream` for `async for` and `async with`.

    A cancelled task cancels its request on the server, too.
    """

    def __init__(self, asking: Asking, request: Request, stub: Callable[[str], Any]) -> None:
        self._asking = asking
        self._running = _Running()
        self._events = _events(asking, request, stub, self._running)
        self._result: Result | None = None
        self.request_id = request.id
        """The id that the request has in the server's log and traces."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        self.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event, as soon as it comes.

        Raises:
            StopAsyncIteration: the result was the last event.
            Cancelled: `cancel` was called.
            IntaglioError: what `AsyncClient.generate` raises.
        """
        try:
            event = await anext(self._events)
        except Unavailable as error:
            raise await asyncio.to_thread(self._asking.explained, error) from error.__cause__
        if isinstance(event, Result):
            self._result = event
        return event

    def cancel(self) -> None:
        """Stop the request on the server, within one slice of steps. After the result it does nothing."""
        self._running.cancel()

    async def result(self) -> tuple[Image, ...]:
        """The images. Events that come before them are dropped. Raises what `anext` does, and Cancelled where
        the stream has ended without images before.
        """
        async for _ in self:
            pass
        if self._result is None:
            raise Cancelled("this stream has ended without images")
        return self._result.images


class _Running:
    """The call that runs now, if one does, and whether it shall stop."""

    def __init__(self) -> None:
        self._call: Any = None
        self._cancelled = asyncio.Event()

    def begin(self, call: Any) -> None:
        self._call = call
        if self._cancelled.is_set():
            call.cancel()

    def end(self) -> None:
        self._call = None

    def cancel(self) -> None:
        self._cancelled.set()
        if self._call is not None:
            self._call.cancel()

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    async def wait(self, seconds: float) -> None:
        """Wait, at most until it is cancelled; Cancelled where it is."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._cancelled.wait(), seconds)
        if self._cancelled.is_set():
            raise Cancelled("cancelled by the caller")


async def _events(
    asking: Asking, request: Request, stub: Callable[[str], Any], running: _Running
) -> AsyncIterator[Event]:
    """The events, from as many attempts as are allowed."""
    await running.wait(0.0)
    for attempt in asking.attempts(request):
        with attempt:
            call = stub(attempt.endpoint.url).ModelStreamInfer(
                iter([attempt.message]), metadata=asking.metadata(request), timeout=attempt.timeout
            )
            running.begin(call)
            try:
                async for response in call:
                    event = attempt.event(response)
                    if isinstance(event, Result):
                        await _read_to_end(call)
                        running.end()
                        yield event
                        return
                    if event is not None:
                        yield event
            except asyncio.CancelledError as error:
                says = "cancelled by the caller" if running.is_cancelled else CLOSED
                raise cancellation(error, says=says) from None
            finally:
                running.end()
                call.cancel()
            raise attempt.ended()
        await running.wait(attempt.pause)


async def _read_to_end(call: Any) -> None:
    """Read what comes after the result: a call that is dropped before its end counts as cancelled."""
    with contextlib.suppress(grpc.RpcError):
        async for _ in call:
            pass
