"""`sdxl_stream` with plain tritonclient: one connection a stream."""

from __future__ import annotations

import io
import json
import queue
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import tritonclient.grpc as triton
from PIL import Image

from intaglio.contract.models import SDXL, SDXL_STREAM
from intaglio.contract.port_values import tensor_from_value
from intaglio.contract.ports import Port, string_tensor

__all__ = ["Ended", "PlainStream", "pixels_of", "streamed", "unary"]

_SECONDS = 120


@dataclass
class Ended:
    """What a stream came to: a picture, or why there is none."""

    events: list[dict[str, Any]] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    """Seconds from the request to each event."""
    previews: list[list[bytes]] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def outcome(self) -> str:
        """The one of result, cancelled, deadline, refused, unavailable that it ended in."""
        if self.images:
            return "result"
        if "Exceeds maximum queue size" in self.error:
            return "refused"
        if "deadline" in self.error or "queue_timeout" in self.error:
            return "deadline"
        if not self.error or "cancelled by the caller" in self.error:
            return "cancelled"
        return self.error

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]


class PlainStream:
    """One request over its own connection."""

    def __init__(self, url: str, **values: Any) -> None:
        self._client = triton.InferenceServerClient(url)
        self._responses: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self._values = values
        self._over = False

    def __enter__(self) -> Self:
        self._client.start_stream(lambda result, error: self._responses.put((result, error)))
        inputs = [_input(SDXL_STREAM.input(name), value) for name, value in self._values.items()]
        self.started = time.perf_counter()
        self._client.async_stream_infer("sdxl_stream", inputs, enable_empty_final_response=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.stop_stream(cancel_requests=not self._over)
        self._client.close()

    def cancel(self) -> None:
        """Cancel the request, as leaving the block before its end does."""
        self._client.stop_stream(cancel_requests=True)
        self._over = True

    def next_into(self, ended: Ended) -> bool:
        """Wait for the next response; whether it was not the last."""
        result, error = self._responses.get(timeout=_SECONDS)
        now = time.perf_counter() - self.started
        if error is not None:
            ended.error = str(error)
            self._over = True
            return False
        self._over = result.get_response().parameters["triton_final_response"].bool_param
        text = result.as_numpy("event")
        if text is not None:
            event = json.loads(text[0])
            ended.events.append(event)
            ended.at.append(now)
            if event["kind"] == "preview":
                ended.previews.append(list(result.as_numpy("preview")))
            if event["kind"] == "result":
                ended.images = list(result.as_numpy("image"))
                ended.metadata = json.loads(result.as_numpy("metadata")[0])
        return not self._over

    def until(self, kind: str) -> Ended:
        """Read until the first event of `kind`."""
        ended = Ended()
        while self.next_into(ended):
            if ended.events and ended.events[-1]["kind"] == kind:
                break
        return ended


def unary(url: str, **values: Any) -> list[bytes]:
    """The images of the same request, sent to `sdxl`."""
    inputs = [_input(SDXL.input(name), value) for name, value in values.items()]
    with triton.InferenceServerClient(url) as client:
        return list(client.infer("sdxl", inputs).as_numpy("image"))


def streamed(url: str, **values: Any) -> Ended:
    """One request from its beginning to its end."""
    ended = Ended()
    with PlainStream(url, **values) as stream:
        while stream.next_into(ended):
            pass
    return ended


def _input(port: Port, value: Any) -> triton.InferInput:
    if port.name == "images":
        array = string_tensor(*value)
    elif port.name in ("loras", "controls") and not isinstance(value, str):
        array = string_tensor(json.dumps(value))
    else:
        array = tensor_from_value(port, value)
    kind = port.datatype.removeprefix("TYPE_").replace("STRING", "BYTES")
    made = triton.InferInput(port.name, list(array.shape), kind)
    made.set_data_from_numpy(array)
    return made


def pixels_of(images: list[bytes]) -> list[bytes]:
    """The pixels of encoded images; their metadata names the build."""
    return [Image.open(io.BytesIO(data)).tobytes() for data in images]
