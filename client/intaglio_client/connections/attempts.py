"""The attempts to get one request answered.

    for attempt in attempts:
        with attempt:
            return attempt.images(...)    # ask attempt.endpoint
        sleep(attempt.pause)

The `with` block swallows an error after which the request is sent again, and raises every other one as ours.
It does not sleep and sends nothing, so both clients use it.
"""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import grpc

from intaglio.errors import Cancelled, IntaglioError, QueueFull, Stopping, Unavailable
from intaglio_client.annotation import Annotation
from intaglio_client.connections.endpoints import Endpoint, Endpoints
from intaglio_client.connections.requests import Request, outputs_of
from intaglio_client.connections.retries import Retries, is_retried
from intaglio_client.errors import CLOSED, ServerError, Unreachable, error_from_message, error_from_rpc
from intaglio_client.events import Event, Outputs, Progress, Queued, event_from_outputs
from intaglio_client.identification import Identification
from intaglio_client.image import Image

__all__ = ["Attempt", "Attempts"]

_CLOSED_CHANNEL: Final = re.compile(r"^Cannot invoke RPC on closed channel!$|^Channel is closed\.$")
"""What gRPC raises, as errors of Python, where `close` came between the choice of a channel and its use."""
_RESULT: Final = ("image", "metadata", "timings")
_log = logging.getLogger(__name__)


class Attempts:
    """Attempts until one is answered, or until no further one is allowed."""

    def __init__(
        self,
        request: Request,
        endpoints: Endpoints,
        retries: Retries,
        *,
        seconds: float | None = None,
        grace: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`seconds` are allowed for all attempts together; None: any time. The server gets `grace` seconds
        less, so that its own answer comes first.
        """
        self.request = request
        self._endpoints = endpoints
        self._retries = retries
        self.grace = grace
        self._clock = clock
        self._until = None if seconds is None else clock() + seconds
        self._tried: set[Endpoint] = set()
        self._round = 0
        self._hint: float | None = None

    def __iter__(self) -> Iterator[Attempt]:
        while True:
            endpoint = self._endpoints.choose(tried=self._tried)
            assert endpoint is not None, "a round ends when all endpoints were tried"
            self._tried.add(endpoint)
            yield Attempt(self, endpoint)

    @property
    def remaining(self) -> float | None:
        """Seconds that are left; None where any time is."""
        return None if self._until is None else max(self._until - self._clock(), 0.0)

    @property
    def is_first(self) -> bool:
        """Whether there was none before the attempt that is made now."""
        return self._round == 0 and len(self._tried) == 1

    def pause_after(self, error: IntaglioError) -> float | None:
        """Seconds before the next attempt; None where there is none after `error`."""
        if not is_retried(error, is_repeatable=self.request.is_repeatable):
            return None
        if isinstance(error, QueueFull) and error.retry_after is not None:
            self._hint = min(error.retry_after, self._hint or error.retry_after)
        pause: float | None = 0.0
        if len(self._tried) == len(self._endpoints.all):
            pause = self._pause_of_next_round()
        remaining = self.remaining
        if pause is None or (remaining is not None and pause >= remaining):
            return None
        return pause

    def _pause_of_next_round(self) -> float | None:
        if self._round == self._retries.most:
            return None
        self._round += 1
        pause = self._retries.pause(self._round, hint=self._hint, share=random.random())
        self._tried.clear()
        self._hint = None
        return pause


class Attempt:
    """One attempt at one endpoint, and what it answers."""

    def __init__(self, attempts: Attempts, endpoint: Endpoint) -> None:
        self._attempts = attempts
        self._started = time.perf_counter()
        self.endpoint = endpoint
        self.pause = 0.0
        """After the block: seconds before the next attempt."""

    def __enter__(self) -> Self:
        self.endpoint.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.endpoint.leave()
        problem = error
        if isinstance(error, grpc.RpcError):
            problem = error_from_rpc(error, url=self.endpoint.url, request_id=self._request.id)
        elif error is not None and _CLOSED_CHANNEL.search(str(error)):
            problem = Cancelled(CLOSED)
        if not isinstance(problem, IntaglioError):
            return False
        if isinstance(problem, Unreachable | Stopping):
            self.endpoint.failed()
        pause = self._attempts.pause_after(problem)
        if pause is None:
            if problem is error:
                return False
            raise problem from error
        _log.info("%s; trying again in %.1f s", problem, pause)
        self.pause = pause
        return True

    @property
    def _request(self) -> Request:
        return self._attempts.request

    @property
    def message(self) -> Any:
        """What to send."""
        attempts = self._attempts
        remaining = attempts.remaining
        if remaining is None or attempts.is_first:
            return self._request.message()
        return self._request.message(remaining=remaining - attempts.grace)

    @property
    def timeout(self) -> float | None:
        """Seconds after which the client gives up."""
        return self._attempts.remaining

    def event(self, response: Any) -> Event | None:
        """The event of a `ModelStreamInferResponse`; None for a kind that this client does not know.

        Raises:
            IntaglioError: the response is an error, or cannot be read.
        """
        if response.error_message:
            message: str = response.error_message
            raise error_from_message(message, url=self.endpoint.url, request_id=self._request.id)
        outputs = outputs_of(response.infer_response)
        if not outputs:  # only the flag that says that it was the last
            return None
        event = event_from_outputs(outputs, images=self.images)
        if isinstance(event, Queued | Progress):
            self.endpoint.told(event.waiting)
        return event

    def ended(self) -> Unavailable:
        """The error of a stream that ended before its result."""
        return Unavailable(f"{self.endpoint.url}: the stream ended without a picture")

    def images(self, outputs: Outputs) -> tuple[Image, ...]:
        """The images of a result; warnings of the server are logged.

        Raises:
            ServerError: something is missing or cannot be read.
        """
        url = self.endpoint.url
        if missing := [name for name in _RESULT if name not in outputs]:
            raise ServerError(f"{url}: answered without {', '.join(missing)}")
        try:
            metadata: dict[str, Any] = json.loads(outputs["metadata"][0])
            timings: dict[str, float] = json.loads(outputs["timings"][0])
        except (ValueError, IndexError) as error:
            raise ServerError(f"{url}: answered without readable metadata") from error
        timings["request"] = time.perf_counter() - self._started
        for warning in metadata.get("warnings", ()):
            _log.warning("%s", warning)
        return tuple(
            Image(bytes(data), {**metadata, "image_index": index}, timings, self._request.id)
            for index, data in enumerate(outputs["image"])
        )

    def annotation(self, outputs: Outputs) -> Annotation:
        """The control map of a photograph; ServerError where it cannot be read."""
        try:
            return Annotation.from_outputs(outputs)
        except (ValueError, KeyError, IndexError) as error:
            raise ServerError(f"{self.endpoint.url}: answered without a readable annotation") from error

    def identification(self, outputs: Outputs) -> Identification:
        """How much a picture is like a character; ServerError where the answer cannot be read."""
        try:
            return Identification.from_outputs(outputs)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ServerError(f"{self.endpoint.url}: answered without readable scores") from error
