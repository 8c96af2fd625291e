"""What both clients do alike before they send anything: requests, attempts, and the reason of a failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

from intaglio.contract.identity import FacesWanted
from intaglio.contract.models import ANNOTATE, IDENTITY, SDXL, SDXL_STREAM, Resize
from intaglio.errors import IntaglioError, InvalidRequest, Unavailable
from intaglio_client.address import explained
from intaglio_client.annotation import annotate_tensors
from intaglio_client.connections.attempts import Attempts
from intaglio_client.connections.channels import KEEPALIVE_SECONDS, ChannelSettings, checked_headers
from intaglio_client.connections.endpoints import Balance, Endpoints
from intaglio_client.connections.requests import Request
from intaglio_client.connections.retries import Retries
from intaglio_client.connections.tls import Tls
from intaglio_client.controls import Encoded
from intaglio_client.errors import Unreachable
from intaglio_client.identification import identity_tensors
from intaglio_client.parameters import tensors_from_parameters

__all__ = ["READY_SECONDS", "Asking", "Settings"]

READY_SECONDS: Final = 5.0
"""How long a server may take to say whether it is ready."""
_DEADLINE_SECONDS: Final = 300.0
"""Longest time that an answer may take unless the caller says another."""
_GRACE_SECONDS: Final = 5.0
"""How much later than the server the client gives up: the server's answer says how far it came."""


class Settings(TypedDict, total=False):
    """Keyword arguments of both clients."""

    deadline: float | None
    """Seconds that an answer may take, with all attempts; None: any time. 300 where it is left out. The
    `deadline` of a stream takes its place.
    """
    keepalive: float
    """Seconds between pings, 330 where it is left out. `intaglio serve` allows 10. Other servers may close
    the connection below 300.
    """
    tls: Tls | None
    """Encrypts; None, and where it is left out: plain text."""
    headers: Mapping[str, str] | None
    """Sent with every call, such as {"authorization": "Bearer ..."}."""
    retries: Retries
    """How often and when a request is sent again. That is only where no picture can be drawn twice."""
    balance: Balance
    """Which of several servers is asked: one after another, or the one where the fewest requests wait."""


class Asking:
    """Which servers are asked, and how. Both clients have one; it sends nothing."""

    def __init__(self, url: str | Sequence[str], settings: Settings) -> None:
        """`url` is host:port of gRPC, or several.

        Raises:
            InvalidRequest: an address, a setting, a header or a file of TLS is wrong.
        """
        if unknown := sorted(settings.keys() - Settings.__annotations__.keys()):
            raise InvalidRequest(unknown[0], "unknown setting", allowed=", ".join(Settings.__annotations__))
        tls = settings.get("tls")
        keepalive = settings.get("keepalive", KEEPALIVE_SECONDS)
        headers = checked_headers(settings.get("headers"))
        self.endpoints = Endpoints(url, balance=settings.get("balance", "round_robin"))
        self.channels = ChannelSettings(keepalive=keepalive, tls=tls, headers=headers)
        self._retries = settings.get("retries", Retries())
        self._deadline = settings.get("deadline", _DEADLINE_SECONDS)
        if tls is not None:
            tls.credentials()  # so that a wrong file is named now

    @property
    def url(self) -> str:
        """The address; several have commas between them."""
        return ", ".join(endpoint.url for endpoint in self.endpoints.all)

    def picture(self, prompt: str, parameters: Mapping[str, Any]) -> Request:
        """A request for one image. Raises what `pictures` does, and InvalidRequest for several images."""
        request = self.pictures(prompt, parameters)
        tensors = request.tensors
        count = tensors["num_images"][0] if "num_images" in tensors else 1
        if count != 1:
            problem = f"{count} from generate"
            raise InvalidRequest("num_images", problem, allowed="1 here; generate_batch makes more")
        return request

    def pictures(self, prompt: str, parameters: Mapping[str, Any]) -> Request:
        """A request for `num_images` images; InvalidRequest names the parameter that is wrong."""
        return Request(model=SDXL, tensors=tensors_from_parameters(prompt, parameters))

    def stream(self, prompt: str, parameters: Mapping[str, Any]) -> Request:
        """The same with events; `parameters` may also have those of the stream itself."""
        tensors = tensors_from_parameters(prompt, parameters, model=SDXL_STREAM)
        return Request(model=SDXL_STREAM, tensors=tensors)

    def annotation(
        self, photo: Encoded, detector: str, *, size: tuple[int, int] | None, resize: Resize
    ) -> Request:
        """A request for the control map of a photograph; InvalidRequest names what is wrong."""
        tensors = annotate_tensors(photo, detector, size=size, resize=resize)
        return Request(model=ANNOTATE, tensors=tensors)

    def identification(
        self, image: Encoded, character: str, *, threshold: float | None, faces: FacesWanted
    ) -> Request:
        """A request for how much a picture is like a character; InvalidRequest names what is wrong."""
        tensors = identity_tensors(image, character, threshold=threshold, faces=faces)
        return Request(model=IDENTITY, tensors=tensors)

    def attempts(self, request: Request) -> Attempts:
        """The attempts that are allowed to get `request` answered."""
        own = request.deadline
        if own is None:
            return Attempts(request, self.endpoints, self._retries, seconds=self._deadline)
        seconds = own + _GRACE_SECONDS
        return Attempts(request, self.endpoints, self._retries, seconds=seconds, grace=_GRACE_SECONDS)

    def metadata(self, request: Request) -> tuple[tuple[str, str], ...]:
        """The headers of a call that sends `request`.

        Triton's own header `triton_grpc_error`, with which a stream fails with a status, is not among them:
        Triton 2.51 dies of it after some failed streams. So an error of a stream is known by its text.
        """
        return (*self.channels.metadata, *request.headers)

    def explained(self, error: Unavailable) -> IntaglioError:
        """`error`, or what explains it: whether the address is that of HTTP is asked there, for 2 s at most.

        Not of several servers, and not of TLS.
        """
        vague = type(error) in (Unavailable, Unreachable)
        if not vague or len(self.endpoints.all) > 1 or self.channels.tls is not None:
            return error
        return explained(error, self.url)
