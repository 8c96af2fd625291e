"""A server of the KServe protocol in this process: it answers what a test tells it to."""

# ruff: noqa: N802  (gRPC calls methods by these names)

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

__all__ = ["FakeServer", "Refusal", "fake_server", "picture", "stream_of"]

METADATA = {"seed": 7, "width": 8, "height": 8, "steps": 4}


@dataclass
class Refusal:
    """A status that ends the call."""

    status: grpc.StatusCode
    message: str


@dataclass
class FakeServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """`answers[i]` is what happens to request i, the last one to all further requests. It is a refusal, or a
    function that yields responses and may wait.
    """

    answers: list[Refusal | Callable[[grpc.ServicerContext], Iterator[Any]]]
    ready: bool = True
    url: str = ""
    requests: list[Any] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when a call ended, in whatever way."""

    def ModelReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelReadyResponse(ready=self.ready)

    def ModelInfer(self, request: Any, context: Any) -> Any:
        return next(self._answered(request, context))

    def ModelStreamInfer(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            for response in self._answered(request, context):
                if isinstance(response, str):
                    yield service_pb2.ModelStreamInferResponse(error_message=response)
                else:
                    yield service_pb2.ModelStreamInferResponse(infer_response=response)

    def _answered(self, request: Any, context: Any) -> Iterator[Any]:
        number = len(self.requests)
        self.requests.append(request)
        self.headers.append(dict(context.invocation_metadata()))
        context.add_callback(self.ended.set)
        answer = self.answers[min(number, len(self.answers) - 1)]
        if isinstance(answer, Refusal):
            context.abort(answer.status, answer.message)
        yield from answer(context)

    def inputs(self, number: int) -> dict[str, Any]:
        """The first value of each input of request `number`."""
        request = self.requests[number]
        kinds = {"INT32": np.int32, "INT64": np.int64, "FP32": np.float32, "BOOL": np.bool_}
        found = {}
        for one, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            if one.datatype == "BYTES":
                found[one.name] = deserialize_bytes_tensor(raw)[0].decode()
            else:
                found[one.name] = np.frombuffer(raw, kinds[one.datatype])[0].item()
        return found


@contextmanager
def fake_server(
    *answers: Any, credentials: grpc.ServerCredentials | None = None, port: int = 0
) -> Iterator[FakeServer]:
    """The server on a free port; `credentials` of TLS."""
    servicer = FakeServer(list(answers))
    server = grpc.server(futures.ThreadPoolExecutor(16))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    address = f"127.0.0.1:{port}"
    if credentials is None:
        bound = server.add_insecure_port(address)
    else:
        bound = server.add_secure_port(address, credentials)
    servicer.url = f"127.0.0.1:{bound}"
    server.start()
    try:
        yield servicer
    finally:
        server.stop(grace=None).wait()


def response(**texts: list[bytes]) -> Any:
    """A response with tensors of text."""
    message = service_pb2.ModelInferResponse()
    for name, values in texts.items():
        message.outputs.add(name=name, datatype="BYTES", shape=[len(values)])
        message.raw_output_contents.append(serialize_byte_tensor(np.array(values, object)).item())
    return message


def event(kind: str, **values: Any) -> Any:
    return response(event=[json.dumps({"kind": kind, **values}).encode()])


def result(count: int = 1) -> Any:
    return response(
        event=[b'{"kind": "result"}'],
        image=[b"image %d" % index for index in range(count)],
        metadata=[json.dumps(METADATA).encode()],
        timings=[b"{}"],
    )


def picture(context: Any) -> Iterator[Any]:
    """What `sdxl` answers."""
    yield result()


def stream_of(*, steps: int = 4, hold: threading.Event | None = None, hold_at: int = 2) -> Any:
    """What `sdxl_stream` answers: queued, progress with a preview after each step, and the result. It waits
    for `hold`, or the end of the call, before the step `hold_at`.
    """

    def answer(context: Any) -> Iterator[Any]:
        yield event("queued", place=1, waiting=3)
        yield event("something_newer", value=1)
        for step in range(1, steps + 1):
            if hold is not None and step == hold_at:
                while context.is_active() and not hold.wait(0.01):
                    pass
            left = 0.1 * (steps - step)
            yield event(
                "progress", step=step, steps=steps, seconds=0.1, seconds_left=left, place=0, waiting=3
            )
            preview = response(
                event=[json.dumps({"kind": "preview", "step": step, "steps": steps}).encode()],
                preview=[b"small"],
            )
            yield preview
        yield result()

    return answer
