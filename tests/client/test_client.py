"""One call of both clients, without a server and with one in this process."""

from __future__ import annotations

import asyncio
import http.server
import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import PIL.Image
import pytest
from tritonclient.grpc import service_pb2_grpc

from intaglio.contract.models import SDXL
from intaglio.triton_models.stopping import REFUSAL
from intaglio_client import (
    NO_RETRIES,
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    Image,
    InvalidRequest,
    QueueFull,
    Retries,
    ServerError,
    Stopping,
    Unavailable,
)
from intaglio_client.connections.attempts import Attempts
from intaglio_client.connections.endpoints import Endpoints
from intaglio_client.connections.requests import Request

from .fake_server import Refusal, fake_server, picture, response

QUICK = Retries(most=2, first=0.01, longest=1.0)


def test_nobody_there() -> None:
    with Client("127.0.0.1:9", deadline=5) as client:
        assert not client.is_ready()
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9.*intaglio serve"):
            client.generate("a fox")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8001", "grpc://127.0.0.1:8001"])
def test_a_url_with_a_scheme_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^url: '{url}'; allowed: host:port of gRPC, such as"):
        Client(url)


@pytest.mark.parametrize("url", ["a..b:8001", ":8001", "localhost", "a:http", "a:70000", "a" * 64 + ":1"])
def test_what_is_not_host_and_port_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^url: .*; allowed: host:port of gRPC, such as"):
        Client(url)


TRITON = b'{"name":"triton","version":"2.51.0","extensions":["classification"]}'


@pytest.mark.parametrize(
    ("status", "answer", "kind", "says"),
    [
        (200, TRITON, InvalidRequest, r"^url: .* answers in HTTP; allowed: the port of gRPC, 8001"),
        (503, b"no healthy upstream", Unavailable, r"is the server running .* it answers in HTTP: is it the"),
        (502, b'{"error": "away"}', Unavailable, r"is the server running .* it answers in HTTP: is it the"),
    ],
    ids=["Triton", "Envoy", "another proxy"],
)
def test_a_port_that_speaks_http_is_named(
    status: int, answer: bytes, kind: type[Exception], says: str
) -> None:
    """A proxy whose server is away may be asked again; Triton's own port of HTTP never helps."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with (
            Client(f"127.0.0.1:{server.server_port}", deadline=10) as client,
            pytest.raises(kind, match=says),
        ):
            client.generate("a fox")
    finally:
        server.shutdown()
        server.server_close()


def ask(url: str, **parameters: Any) -> Image:
    with Client(url, retries=QUICK) as client:
        return client.generate("a fox", **parameters)


def ask_async(url: str, **parameters: Any) -> Image:
    async def answer() -> Image:
        async with AsyncClient(url, retries=QUICK) as client:
            return await client.generate("a fox", **parameters)

    return asyncio.run(answer())


BOTH = pytest.mark.parametrize("ask", [ask, ask_async], ids=["sync", "async"])
FULL = Refusal(grpc.StatusCode.UNAVAILABLE, "in ensemble 'sdxl', Exceeds maximum queue size")
BROKEN = Refusal(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@BOTH
def test_a_picture_and_what_made_it(ask: Callable[..., Image]) -> None:
    with fake_server(picture) as server:
        image = ask(server.url, seed=7, priority="batch")
    assert (image.data, image.seed, image.request_id) == (b"image 0", 7, server.requests[0].id)
    assert image.timings["request"] > 0
    assert server.inputs(0) == {"prompt": "a fox", "seed": 7, "priority": "batch"}


@BOTH
def test_a_full_queue_is_asked_again_and_a_broken_call_only_with_a_seed(ask: Callable[..., Image]) -> None:
    with fake_server(FULL, FULL, picture) as server:
        assert ask(server.url).data == b"image 0"
        assert len(server.requests) == 3
    with fake_server(FULL) as server, pytest.raises(QueueFull):
        ask(server.url)
    assert len(server.requests) == 3
    with fake_server(BROKEN, picture) as server, pytest.raises(Unavailable):
        ask(server.url)
    assert len(server.requests) == 1
    with fake_server(BROKEN, picture) as server:
        assert ask(server.url, seed=7).data == b"image 0"


def test_several_servers_share_the_work() -> None:
    with fake_server(picture) as one, fake_server(FULL) as other, Client([one.url, other.url]) as client:
        assert {client.generate("a fox").data for _ in range(6)} == {b"image 0"}
        assert len(one.requests) == 6
        assert len(other.requests) == 3, "each second request came here first"


def test_a_server_that_stops_is_passed_over() -> None:
    stopping = Refusal(grpc.StatusCode.UNAVAILABLE, REFUSAL)
    with fake_server(stopping) as one, fake_server(picture) as other, Client([one.url, other.url]) as client:
        assert {client.generate("a fox").data for _ in range(4)} == {b"image 0"}
        assert (len(one.requests), len(other.requests)) == (1, 4)
    with fake_server(stopping) as one, pytest.raises(Stopping):
        ask(one.url)
    assert len(one.requests) == 3, "it may be started again meanwhile"


@BOTH
def test_an_answer_without_metadata_is_an_error(ask: Callable[..., Image]) -> None:
    def nothing(context: Any) -> Iterator[Any]:
        yield response(image=[b"data"])

    with fake_server(nothing) as server, pytest.raises(ServerError, match="without metadata, timings"):
        ask(server.url)


def test_ready_is_what_one_of_the_servers_says() -> None:
    async def is_ready(url: list[str]) -> bool:
        async with AsyncClient(url) as client:
            return await client.is_ready()

    with fake_server(picture) as server:
        for ready in (True, False):
            server.ready = ready
            with Client(["127.0.0.1:9", server.url]) as client:
                assert client.is_ready() is ready
            assert asyncio.run(is_ready(["127.0.0.1:9", server.url])) is ready


def test_threads_share_a_client() -> None:
    with fake_server(picture) as server, Client(server.url) as client, ThreadPoolExecutor(8) as pool:
        assert {image.data for image in pool.map(lambda _: client.generate("a fox"), range(40))} == {
            b"image 0"
        }
    assert len({one.id for one in server.requests}) == 40


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"^timeout: unknown setting; allowed: deadline, keepalive, tls"):
        Client("127.0.0.1:9", timeout=3)  # type: ignore[call-arg]


def test_a_client_that_is_closed_cancels_its_calls() -> None:
    """And not the task that waits for one."""
    held = threading.Event()

    def slow(context: Any) -> Iterator[Any]:
        held.wait(30)
        yield from picture(context)

    async def run(url: str) -> None:
        client = AsyncClient(url)
        task = asyncio.create_task(client.generate("a fox"))
        await asyncio.sleep(0.3)
        await client.close()
        with pytest.raises(Cancelled, match="the client was closed"):
            await asyncio.wait_for(task, 5)

    with fake_server(slow) as server:
        asyncio.run(run(server.url))
        client = Client(server.url)
        threading.Timer(0.3, client.close).start()
        with pytest.raises(Cancelled, match="the client was closed"):
            client.generate("a fox")
        held.set()


def test_an_answer_that_comes_after_the_deadline_is_no_answer() -> None:
    """Of a picture or of a control map; the next one is right."""
    held = threading.Event()

    def late(context: Any) -> Iterator[Any]:
        held.wait(30)
        yield from picture(context)

    photo = io.BytesIO()
    PIL.Image.new("RGB", (64, 64)).save(photo, "PNG")
    with fake_server(late) as server, Client(server.url, deadline=1) as client:
        with pytest.raises(DeadlineExceeded, match="no answer within the deadline"):
            client.annotate(photo.getvalue(), "pose")
        with pytest.raises(DeadlineExceeded, match="no answer within the deadline"):
            client.generate("a fox", seed=7)
        assert len(server.requests) == 2, "neither is sent again"
        held.set()
        assert client.generate("a fox").data == b"image 0"


SLOW = Retries(most=2, first=60.0, longest=60.0)


def test_a_client_that_is_closed_opens_nothing_for_an_earlier_call(caplog: pytest.LogCaptureFixture) -> None:
    """One that waits to try again ends, whoever it asks."""
    caplog.set_level(logging.INFO, "intaglio_client")

    def close_in_pause(client: Client) -> None:
        while "trying again" not in caplog.text:
            time.sleep(0.01)
        client.close()

    with fake_server(FULL) as server, ThreadPoolExecutor(1) as pool:
        client = Client(server.url, retries=SLOW)
        stream = client.stream("a fox")
        closing = pool.submit(close_in_pause, client)
        with pytest.raises(Cancelled, match="the client was closed"):
            client.generate("a fox")
        closing.result()
        with pytest.raises(Cancelled, match="the client was closed"):
            next(stream)
        assert client._channels == {}
        with pytest.raises(QueueFull):
            Client(server.url, retries=NO_RETRIES).generate("a fox")
        assert len(server.requests) == 2


def test_the_same_with_asyncio() -> None:
    async def run(url: str) -> None:
        client = AsyncClient(url, retries=SLOW)
        stream = client.stream("a fox")
        task = asyncio.create_task(client.generate("a fox"))
        while not server.ended.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        await client.close()
        for waiting in (task, anext(stream)):
            with pytest.raises(Cancelled, match="the client was closed"):
                await asyncio.wait_for(waiting, 5)
        assert client._channels == {}

    with fake_server(FULL) as server:
        asyncio.run(run(server.url))
    assert len(server.requests) == 1


def test_a_channel_that_is_closed_before_its_use() -> None:
    """Between the choice of a channel and the call."""
    request = Request(model=SDXL, tensors={})
    attempt = next(iter(Attempts(request, Endpoints("127.0.0.1:9"), QUICK)))
    channel = grpc.insecure_channel("127.0.0.1:9")
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    channel.close()
    with pytest.raises(Cancelled, match="the client was closed"), attempt:
        stub.ModelInfer(attempt.message)

    async def run() -> None:
        attempt = next(iter(Attempts(request, Endpoints("127.0.0.1:9"), QUICK)))
        channel = grpc.aio.insecure_channel("127.0.0.1:9")
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        await channel.close()
        with pytest.raises(Cancelled, match="the client was closed"), attempt:
            await stub.ModelInfer(attempt.message)

    asyncio.run(run())
