"""The client: a call returns a typed result or raises a typed error. The one for asyncio is alike."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from intaglio.contract.identity import FacesWanted
from intaglio.contract.models import ADMITTING_VERSION, SDXL, Resize
from intaglio.errors import Cancelled, Unavailable
from intaglio_client.address import DEFAULT_URL
from intaglio_client.annotation import Annotation
from intaglio_client.asking import READY_SECONDS, Asking, Settings
from intaglio_client.connections.attempts import Attempt
from intaglio_client.connections.requests import Request, outputs_of
from intaglio_client.controls import Encoded
from intaglio_client.errors import CLOSED
from intaglio_client.events import Outputs
from intaglio_client.identification import Identification
from intaglio_client.image import Image
from intaglio_client.parameters import Parameters
from intaglio_client.repetition import repetition_of
from intaglio_client.stream import Stream

__all__ = ["Client"]

Answer = TypeVar("Answer")


class Client:
    """Asks one server, or several. The first call connects. Threads may share a client."""

    def __init__(self, url: str | Sequence[str] = DEFAULT_URL, **settings: Unpack[Settings]) -> None:
        """`url` is host:port of gRPC, or several of servers that draw the same.

        Raises:
            InvalidRequest: an address, a setting, a header or a file of TLS is wrong.
        """
        self._asking = Asking(url, settings)
        self._channels: dict[str, grpc.Channel] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        """Set by `close`, which ends the calls that have begun; then a new one for later calls."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The address; several have commas between them."""
        return self._asking.url

    def close(self) -> None:
        """Close the connections; a later call opens others. What has begun ends with Cancelled."""
        with self._lock:
            self._closed.set()
            self._closed = threading.Event()
            for channel in self._channels.values():
                channel.close()
            self._channels.clear()

    def is_ready(self) -> bool:
        """Whether a server answers and would accept a request now."""
        asked = service_pb2.ModelReadyRequest(name=SDXL.name, version=ADMITTING_VERSION)
        metadata = self._asking.channels.metadata
        for endpoint in self._asking.endpoints.all:
            try:
                stub = self._stub(endpoint.url, self._closed)
                if stub.ModelReady(asked, metadata=metadata, timeout=READY_SECONDS).ready:
                    return True
            except grpc.RpcError:
                continue
        return False

    def generate(self, prompt: str, **parameters: Unpack[Parameters]) -> Image:
        """One image.

        Raises:
            InvalidRequest: names the field and what is allowed; nothing was sent, or the server refused it.
            QueueFull, Unavailable: the same request may work later.
            DeadlineExceeded, Cancelled, ServerError: see `intaglio.errors`.
        """
        return self._images(self._asking.picture(prompt, parameters))[0]

    def generate_batch(self, prompt: str, **parameters: Unpack[Parameters]) -> tuple[Image, ...]:
        """`num_images` images of one request; raises what `generate` does."""
        return self._images(self._asking.pictures(prompt, parameters))

    def repeat(self, image: bytes | Path, *, images: Sequence[bytes] = ()) -> Image:
        """The same image again, from the metadata inside it. It is equal bit for bit where the server runs
        the same build. LoRA tags leave the prompt: `loras` says what they stood for.

        `images` are the control images of the original request, if it had any.

        Raises:
            InvalidRequest: no metadata inside, or a control image is missing; and what `generate` raises.
        """
        asked = repetition_of(image, images)
        return asked.picked(self.generate_batch(asked.prompt, **asked.parameters))

    def stream(
        self,
        prompt: str,
        *,
        slice_steps: int | None = None,
        preview: int | None = None,
        deadline: float | None = None,
        **parameters: Unpack[Parameters],
    ) -> Stream:
        """The same images, and before them what happens to the request.

        `slice_steps`: steps between two events; None: the deployment's choice.
        `preview`: the longest side of previews in pixels; None: there are none.
        `deadline`: seconds from the arrival of the request to its images. The server stops drawing then.

        Raises:
            InvalidRequest: names the parameter that is wrong. Nothing is sent before the stream is read;
                reading raises what `generate` does, and `NotServed` where the server cannot stream.
        """
        own = {"slice_steps": slice_steps, "preview": preview, "deadline": deadline}
        request = self._asking.stream(prompt, {**parameters, **own})
        return Stream(self._asking, request, partial(self._stub, closed=self._closed))

    def annotate(
        self,
        photo: Encoded,
        detector: str,
        *,
        size: tuple[int, int] | None = None,
        resize: Resize = "stretch",
    ) -> Annotation:
        """The control map of a photograph.

        `detector` is an id of the server's deployment, or the type of map that is wanted. The map has the
        size of the photograph, or `size`: width and height in pixels.

        Raises:
            InvalidRequest: names the field and what is allowed; also where the photograph has nothing that
                the detector looks for.
            Unavailable: no server, or its deployment has no detectors.
            ServerError: the detector failed.
            QueueFull, DeadlineExceeded, Cancelled: see `intaglio.errors`.
        """
        request = self._asking.annotation(photo, detector, size=size, resize=resize)
        return self._answered(request, Attempt.annotation)

    def identify(
        self,
        image: Encoded,
        character: str,
        *,
        threshold: float | None = None,
        faces: FacesWanted = "one",
    ) -> Identification:
        """How much a picture is like a character that is enrolled on the server (docs/characters.md).

        `threshold` takes the place of the character's. `faces`: "one" is a picture of one face, "any" one of
        whose faces one must be the character's.

        Raises:
            InvalidRequest: names the field and what is allowed; also where the character is not enrolled.
            Unavailable: no server, or its deployment reads no faces.
            QueueFull, DeadlineExceeded, Cancelled, ServerError: see `intaglio.errors`.
        """
        request = self._asking.identification(image, character, threshold=threshold, faces=faces)
        return self._answered(request, Attempt.identification)

    def _images(self, request: Request) -> tuple[Image, ...]:
        return self._answered(request, Attempt.images)

    def _answered(self, request: Request, read: Callable[[Attempt, Outputs], Answer]) -> Answer:
        closed = self._closed
        with self._explaining():
            for attempt in self._asking.attempts(request):
                with attempt:
                    response = self._stub(attempt.endpoint.url, closed).ModelInfer(
                        attempt.message, metadata=self._asking.metadata(request), timeout=attempt.timeout
                    )
                    return read(attempt, outputs_of(response))
                closed.wait(attempt.pause)
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except Unavailable as error:
            raise self._asking.explained(error) from error.__cause__

    def _stub(self, url: str, closed: threading.Event) -> Any:
        """What calls the server at `url`. Cancelled where the client was closed since the call began."""
        with self._lock:
            if closed.is_set():
                raise Cancelled(CLOSED)
            if url not in self._channels:
                self._channels[url] = self._asking.channels.open(url)
            return service_pb2_grpc.GRPCInferenceServiceStub(self._channels[url])
