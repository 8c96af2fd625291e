"""The gRPC client: a call returns a typed result or raises a typed error."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, Unpack

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from intaglio.contract.models import ANNOTATE, SDXL, ModelSpec, Resize
from intaglio.errors import InvalidRequest, Unavailable
from intaglio.imaging.images import read_metadata
from intaglio_client.address import DEFAULT_URL, check_url, explained
from intaglio_client.annotation import Annotation, annotate_tensors
from intaglio_client.controls import Encoded
from intaglio_client.errors import ServerError, error_from_exception
from intaglio_client.image import Image, model_differences
from intaglio_client.parameters import Parameters, parameters_from_metadata, tensors_from_parameters

__all__ = ["KEEPALIVE_SECONDS", "Client"]

_DEADLINE_SECONDS: Final = 300.0
_LARGEST_MESSAGE: Final = 2**31 - 1
KEEPALIVE_SECONDS: Final = 330.0
"""Between pings, which notice a connection that dies while an image is made.

A server takes one ping in five minutes while it sends nothing, unless it was started with other options. It
closes the connection of whoever pings more often ("too_many_pings").
"""
_CHANNEL: Final = [
    ("grpc.max_send_message_length", _LARGEST_MESSAGE),
    ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # A restarted server is found again within seconds; with gRPC's default that may take two minutes.
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]
_WIRE_NAMES: Final = {
    "TYPE_STRING": "BYTES",
    "TYPE_FP32": "FP32",
    "TYPE_INT32": "INT32",
    "TYPE_INT64": "INT64",
    "TYPE_BOOL": "BOOL",
    "TYPE_UINT8": "UINT8",
}
_log = logging.getLogger(__name__)


class Client:
    """A connection to one server, opened by the first call. Use one client a thread, as tritonclient asks."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        deadline: float | None = _DEADLINE_SECONDS,
        keepalive: float = KEEPALIVE_SECONDS,
    ) -> None:
        """`url` is host:port of gRPC. An answer may take `deadline` seconds; with None, any time.

        `keepalive` is the time between pings in seconds. `intaglio serve` allows 10. Other servers may close
        the connection below 300.

        Raises:
            InvalidRequest: `url` is not host:port.
        """
        self.url = check_url(url)
        self.keepalive = keepalive
        self.deadline = deadline
        self._connection: triton.InferenceServerClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a later call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def is_ready(self) -> bool:
        """Whether the server answers and would accept a request now."""
        try:
            return bool(self._channel().is_model_ready(SDXL.name, client_timeout=5.0))
        except InferenceServerException:
            return False

    def generate(self, prompt: str, **parameters: Unpack[Parameters]) -> Image:
        """One image.

        Raises:
            InvalidRequest: names the field and what is allowed; nothing was sent, or the server refused it.
            QueueFull, Unavailable: the same request may work later.
            DeadlineExceeded, Cancelled, ServerError: see `intaglio.errors`.
        """
        tensors = tensors_from_parameters(prompt, parameters)
        count = tensors["num_images"][0] if "num_images" in tensors else 1
        if count != 1:
            problem = f"{count} from generate"
            raise InvalidRequest("num_images", problem, allowed="1 here; generate_batch makes more")
        return self._images(tensors)[0]

    def generate_batch(self, prompt: str, **parameters: Unpack[Parameters]) -> tuple[Image, ...]:
        """`num_images` images of one request; raises what `generate` does."""
        return self._images(tensors_from_parameters(prompt, parameters))

    def repeat(self, image: bytes | Path, *, images: Sequence[bytes] = ()) -> Image:
        """The same image again, from the metadata inside it. It is equal bit for bit where the server runs
        the same build. LoRA tags leave the prompt: `loras` says what they stood for.

        `images` are the control images of the original request, if it had any.

        Raises:
            InvalidRequest: no metadata inside, or a control image is missing; and what `generate` raises.
        """
        metadata = metadata_of(image)
        prompt, parameters = parameters_from_metadata(metadata, images)
        again = self.generate_batch(prompt, **parameters)[int(metadata.get("image_index", 0))]
        for difference in model_differences(metadata, again.metadata):
            _log.warning("%s; the image may differ", difference)
        return again

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
        tensors = annotate_tensors(photo, detector, size=size, resize=resize)
        outputs = self._infer(ANNOTATE, tensors, uuid.uuid4().hex)
        try:
            return Annotation.from_outputs(outputs)
        except (ValueError, KeyError, IndexError) as error:
            raise ServerError(f"{self.url}: answered without a readable annotation") from error

    def _images(self, tensors: dict[str, NDArray[Any]]) -> tuple[Image, ...]:
        started = time.perf_counter()
        request_id = uuid.uuid4().hex
        outputs = self._infer(SDXL, tensors, request_id)
        seconds = time.perf_counter() - started
        try:
            metadata: dict[str, Any] = json.loads(outputs["metadata"][0])
            timings: dict[str, float] = json.loads(outputs["timings"][0])
        except (ValueError, IndexError) as error:
            raise ServerError(f"{self.url}: answered without readable metadata") from error
        timings["request"] = seconds
        for warning in metadata.get("warnings", ()):
            _log.warning("%s", warning)
        return tuple(
            Image(bytes(data), {**metadata, "image_index": index}, timings, request_id)
            for index, data in enumerate(outputs["image"])
        )

    def _infer(
        self, model: ModelSpec, tensors: dict[str, NDArray[Any]], request_id: str
    ) -> dict[str, NDArray[Any]]:
        inputs = []
        for name, array in tensors.items():
            tensor = triton.InferInput(name, list(array.shape), _WIRE_NAMES[model.input(name).datatype])
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        outputs = [triton.InferRequestedOutput(port.name) for port in model.outputs]
        try:
            result = self._channel().infer(
                model.name, inputs, outputs=outputs, request_id=request_id, client_timeout=self.deadline
            )
        except InferenceServerException as error:
            raised = error_from_exception(error, url=self.url, request_id=request_id)
            if type(raised) is Unavailable:  # not that a server is busy: perhaps none of ours is there
                raised = explained(raised, self.url)
            raise raised from error
        arrays = {port.name: result.as_numpy(port.name) for port in model.outputs}
        if missing := [name for name, array in arrays.items() if array is None]:
            raise ServerError(f"{self.url}: answered without {', '.join(missing)}")
        return {name: np.asarray(array) for name, array in arrays.items()}

    def _channel(self) -> triton.InferenceServerClient:
        if self._connection is None:
            pings = [("grpc.keepalive_time_ms", round(1000 * self.keepalive))]
            self._connection = triton.InferenceServerClient(self.url, channel_args=[*_CHANNEL, *pings])
        return self._connection


def metadata_of(image: bytes | Path) -> dict[str, Any]:
    """What an image says about how it was made; InvalidRequest where it says nothing."""
    allowed = "an image that intaglio made, not re-saved by another program"
    try:
        data = image if isinstance(image, bytes) else image.read_bytes()
        metadata = read_metadata(data)
    except (OSError, ValueError, SyntaxError) as error:
        raise InvalidRequest("like", f"cannot be read: {error}", allowed=allowed) from error
    if metadata is None:
        raise InvalidRequest("like", "no intaglio metadata inside", allowed=allowed)
    return metadata
