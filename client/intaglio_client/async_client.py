"""The client for asyncio: `Client`, with `await` and `async for`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from intaglio.contract.identity import FacesWanted
from intaglio.contract.models import ADMITTING_VERSION, SDXL, Resize
from intaglio.errors import Cancelled, Unavailable
from intaglio_client.address import DEFAULT_URL
from intaglio_client.annotation import Annotation
from intaglio_client.asking import READY_SECONDS, Asking, Settings
from intaglio_client.async_stream import AsyncStream
from intaglio_client.connections.async_calls import cancellation
from intaglio_client.connections.attempts import Attempt
from intaglio_client.connections.requests import Request, outputs_of
from intaglio_client.controls import Encoded
from intaglio_client.errors import CLOSED
from intaglio_client.events import Outputs
from intaglio_client.identification import Identification
from intaglio_client.image import Image
from intaglio_client.parameters import Parameters
from intaglio_client.repetition import repetition_of

__all__ = ["AsyncClient"]

Answer = TypeVar("Answer")


class AsyncClient:
    """Asks one server, or several. The first call connects. One event loop may use it, with many tasks.

    Methods take what those of `Client` take, and raise the same errors.
    """

    def __init__(self, url: str | Sequence[str] = DEFAULT_URL, **settings: Unpack[Settings]) -> None:
        """`url` is host:port of gRPC, or several of servers that draw the same.

        Raises:
            InvalidRequest: an address, a setting, a header or a file of TLS is wrong.
        """
        self._asking = Asking(url, settings)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def url(self) -> str:
        """The address; several have commas between them."""
        return self._asking.url

    async def close(self) -> None:
        """Close the connections; a later call opens others. What has begun ends with Cancelled."""
        self._closed.set()
        self._closed = asyncio.Event()
        channels = list(self._channels.values())
        self._channels.clear()
        for channel in channels:
            await channel.close()

    async def is_ready(self) -> bool:
        """Whether a server answers and would accept a request now."""
        asked = service_pb2.ModelReadyRequest(name=SDXL.name, version=ADMITTING_VERSION)
        metadata = self._asking.channels.metadata
        for endpoint in self._asking.endpoints.all:
            try:
                stub = self._stub(endpoint.url, self._closed)
                if (await stub.ModelReady(asked, metadata=metadata, timeout=READY_SECONDS)).ready:
                    return True
            except grpc.RpcError:
                continue
        return False

    async def generate(self, prompt: str, **parameters: Unpack[Parameters]) -> Image:
        """One image."""
        return (await self._images(self._asking.picture(prompt, parameters)))[0]

    async def generate_batch(self, prompt: str, **parameters: Unpack[Parameters]) -> tuple[Image, ...]:
        """`num_images` images of one request."""
        return await self._images(self._asking.pictures(prompt, parameters))

    async def repeat(self, image: bytes | Path, *, images: Sequence[bytes] = ()) -> Image:
        """The same image again, from the metadata inside it; `images` are the request's control images."""
        asked = repetition_of(image, images)
        return asked.picked(await self.generate_batch(asked.prompt, **asked.parameters))

    def stream(
        self,
        prompt: str,
        *,
        slice_steps: int | None = None,
        preview: int | None = None,
        deadline: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> AsyncStream:
        """The same images, and before them what happens to the request."""
        own = {"slice_steps": slice_steps, "preview": preview, "deadline": deadline}
        request = self._asking.stream(prompt, {**parameters, **own})
        return AsyncStream(self._asking, request, partial(self._stub, closed=self._closed))

    async def annotate(
        self,
        photo: Encoded,
        detector: str,
        *,
        size: tuple[int, int] | None = None,
        resize: Resize = "stretch",
    ) -> Annotation:
        """The control map of a photograph."""
        request = self._asking.annotation(photo, detector, size=size, resize=resize)
        return await self._answered(request, Attempt.annotation)

    async def identify(
        self,
        image: Encoded,
        character: str,
        *,
        threshold: float | None = None,
        faces: FacesWanted = "one",
    ) -> Identification:
        """How much a picture is like a character that is enrolled on the server."""
        request = self._asking.identification(image, character, threshold=threshold, faces=faces)
        return await self._answered(request, Attempt.identification)

    async def _images(self, request: Request) -> tuple[Image, ...]:
        return await self._answered(request, Attempt.images)

    async def _answered(self, request: Request, read: Callable[[Attempt, Outputs], Answer]) -> Answer:
        closed = self._closed
        async with self._explaining():
            for attempt in self._asking.attempts(request):
                with attempt:
                    call = self._stub(attempt.endpoint.url, closed).ModelInfer(
                        attempt.message, metadata=self._asking.metadata(request), timeout=attempt.timeout
                    )
                    try:
                        response = await call
                    except asyncio.CancelledError as error:
                        raise cancellation(error, says=CLOSED) from None
                    return read(attempt, outputs_of(response))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(closed.wait(), attempt.pause)
        raise AssertionError("the last attempt returns or raises")

    @asynccontextmanager
    async def _explaining(self) -> AsyncIterator[None]:
        try:
            yield
        except Unavailable as error:
            raise await asyncio.to_thread(self._asking.explained, error) from error.__cause__

    def _stub(self, url: str, closed: asyncio.Event) -> Any:
        """What calls the server at `url`. Cancelled where the client was closed since the call began."""
        if closed.is_set():
            raise Cancelled(CLOSED)
        if url not in self._channels:
            self._channels[url] = self._asking.channels.open_async(url)
        return service_pb2_grpc.GRPCInferenceServiceStub(self._channels[url])
