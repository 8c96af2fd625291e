"""What slices and events cost: pictures from `sdxl_stream` beside those of `sdxl`, over gRPC.

    python -m benchmarks.speed.stream CASE.json WORK_FOLDER
Settings take turns at every image, and another one begins each time, so a drift of the machine meets all. All
make the same picture, byte for byte. `first event` and `first slice` are seconds from the request to them.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import tritonclient.grpc as triton
import typer
from numpy.typing import NDArray

from benchmarks.measuring.case import Case
from benchmarks.measuring.parts import end_orderly_on_terminate
from benchmarks.measuring.results import write_part
from benchmarks.measuring.timing import Stopwatch
from benchmarks.speed.served import ask, open_server
from benchmarks.speed.settings import SLICES, STREAMED, UNARY
from intaglio.contract.models import SDXL_STREAM
from intaglio_client import Client
from intaglio_client.parameters import tensors_from_parameters

_DEADLINE: Final = 300


class _Streams:
    """Requests to `sdxl_stream`, one after another over one connection."""

    def __init__(self, client: triton.InferenceServerClient) -> None:
        self._client = client
        self._responses: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(lambda result, error: self._responses.put((result, error)))

    def picture(self, tensors: Mapping[str, NDArray[Any]], watch: Stopwatch) -> bytes:
        """The picture of `tensors`; the watch gets the seconds to its first events."""
        started = time.perf_counter()
        self._client.async_stream_infer("sdxl_stream", [_input(name, one) for name, one in tensors.items()])
        seen = 0
        while True:
            result, error = self._responses.get(timeout=_DEADLINE)
            if error is not None:
                raise RuntimeError(str(error))
            event = json.loads(result.as_numpy("event")[0])
            if event["kind"] == "result":
                image: bytes = result.as_numpy("image")[0]
                return image
            seen += event["kind"] == "progress"
            if event["kind"] == "progress" and seen <= 2:
                name = "first event" if seen == 1 else "first slice"
                watch.laps.setdefault(name, []).append(time.perf_counter() - started)


def main(case: Path, work: Path) -> None:
    """Measure every setting on the case's images."""
    told = Case.read(case)
    told.draw_controls(told.images)
    watch = Stopwatch()
    events = Stopwatch()
    names = [UNARY, *STREAMED]
    with ExitStack() as stack:
        server = stack.enter_context(open_server(told))
        client = stack.enter_context(Client(server.grpc_url, deadline=_DEADLINE))
        channel = stack.enter_context(triton.InferenceServerClient(server.grpc_url))
        streams = _Streams(channel)

        def draw(name: str, image: int, seen: Stopwatch) -> bytes:
            if name == UNARY:
                return ask(client, told, image).data
            tensors = tensors_from_parameters(told.prompt_of(image), told.parameters_of(image))
            own = {key: np.array([value], np.int32) for key, value in STREAMED[name].items()}
            return streams.picture(tensors | own, seen)

        for name in names:
            draw(name, -1, Stopwatch())
        for image in range(told.images):
            first = image % len(names)
            drawn: set[bytes] = set()
            for name in names[first:] + names[:first]:
                seen = events if name == SLICES else Stopwatch()
                with watch.lap(name):
                    drawn.add(draw(name, image, seen))
            if len(drawn) != 1:
                raise ValueError(f"image {image}: the settings drew {len(drawn)} different pictures")
            write_part(work, "stream", {"seconds": watch.spreads(), "events": events.spreads()})
        channel.stop_stream()


def _input(name: str, array: NDArray[Any]) -> triton.InferInput:
    kind = SDXL_STREAM.input(name).datatype.removeprefix("TYPE_").replace("STRING", "BYTES")
    made = triton.InferInput(name, list(array.shape), kind)
    made.set_data_from_numpy(array)
    return made


if __name__ == "__main__":
    end_orderly_on_terminate()
    typer.run(main)
