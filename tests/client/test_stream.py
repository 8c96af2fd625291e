"""Streams of both clients, from a server in this process."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from intaglio_client import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    Event,
    InvalidRequest,
    NotServed,
    Preview,
    Progress,
    Queued,
    QueueFull,
    Result,
    Retries,
    ServerError,
    Unavailable,
)

from .fake_server import FakeServer, Refusal, event, fake_server, response, stream_of

QUICK = Retries(most=2, first=0.01, longest=1.0)
Read = Callable[..., list[Event]]


def read(
    url: str | list[str], prompt: str = "a fox", *, settings: Any = None, **parameters: Any
) -> list[Event]:
    with (
        Client(url, retries=QUICK, **(settings or {})) as client,
        client.stream(prompt, **parameters) as events,
    ):
        return list(events)


def read_async(
    url: str | list[str], prompt: str = "a fox", *, settings: Any = None, **parameters: Any
) -> list[Event]:
    async def events() -> list[Event]:
        async with (
            AsyncClient(url, retries=QUICK, **(settings or {})) as client,
            client.stream(prompt, **parameters) as stream,
        ):
            return [event async for event in stream]

    return asyncio.run(events())


BOTH = pytest.mark.parametrize("read", [read, read_async], ids=["sync", "async"])


@BOTH
def test_the_events_come_in_order(read: Read) -> None:
    with fake_server(stream_of(steps=2)) as server:
        events = read(server.url, seed=7, preview=64, slice_steps=1, deadline=30)
    assert [type(one) for one in events] == [Queued, Progress, Preview, Progress, Preview, Result]
    assert events[0] == Queued(place=1, waiting=3)
    assert events[1] == Progress(step=1, steps=2, seconds=0.1, seconds_left=0.1, place=0, waiting=3)
    assert isinstance(events[2], Preview)
    assert events[2].images == (b"small",)
    assert isinstance(events[-1], Result)
    assert (events[-1].image.data, events[-1].image.seed) == (b"image 0", 7)
    sent = {"prompt": "a fox", "seed": 7, "preview": 64, "slice_steps": 1, "deadline": 30.0}
    assert server.inputs(0) == sent
    assert server.requests[0].model_name == "sdxl_stream"
    assert "triton_grpc_error" not in server.headers[0], "Triton 2.51 dies of it"


REFUSALS = [
    ("INVALID_ARGUMENT", "steps: 0 is out of range; allowed: 1 to 150", InvalidRequest),
    ("CANCELLED", "the deadline of 2 s passed at step 3 of 4", DeadlineExceeded),
    ("CANCELLED", "queue_timeout: waited 1 s", DeadlineExceeded),
    ("CANCELLED", "cancelled by its caller", Cancelled),
    ("NOT_FOUND", "Request for unknown model: 'sdxl_stream' is not found", NotServed),
    ("INTERNAL", "Stub process 'diffuse_0_0' is not healthy.", ServerError),
]


@BOTH
@pytest.mark.parametrize(("status", "message", "kind"), REFUSALS)
def test_a_status_of_the_server_becomes_its_error(
    read: Read, status: str, message: str, kind: type[Exception]
) -> None:
    with fake_server(Refusal(grpc.StatusCode[status], message)) as server, pytest.raises(kind) as raised:
        read(server.url, seed=7)
    assert type(raised.value) is kind
    assert len(server.requests) == 1, "neither waiting nor a second try helps"


TEXTS = [
    ("Request for unknown model: 'sdxl_stream' is not found", NotServed),
    ("steps: 0 is out of range; allowed: 1 to 150", InvalidRequest),
    ("Model diffuse - Error when running inference: Server not ready", Unavailable),
    ("something broke", ServerError),
]


@BOTH
@pytest.mark.parametrize(("message", "kind"), TEXTS)
def test_a_text_without_a_status_becomes_an_error(read: Read, message: str, kind: type[Exception]) -> None:
    def answer(context: Any) -> Iterator[Any]:
        yield message

    with fake_server(answer) as server, pytest.raises(kind):
        read(server.url)


@BOTH
def test_a_stream_that_ends_without_its_picture_is_an_error(read: Read) -> None:
    def answer(context: Any) -> Iterator[Any]:
        yield event("queued", place=0, waiting=0)

    with fake_server(answer) as server, pytest.raises(Unavailable, match="ended without a picture"):
        read(server.url)


@BOTH
def test_an_event_that_cannot_be_read_is_an_error(read: Read) -> None:
    def answer(context: Any) -> Iterator[Any]:
        yield response(event=[b"{"])

    with fake_server(answer) as server, pytest.raises(ServerError, match="event that cannot be read"):
        read(server.url)


@BOTH
def test_a_full_queue_is_asked_again_when_it_says_so(read: Read) -> None:
    full = Refusal(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size; try again in 0.2 s")
    with fake_server(full, stream_of()) as server:
        started = time.monotonic()
        assert isinstance(read(server.url)[-1], Result)
    assert len(server.requests) == 2
    assert time.monotonic() - started >= 0.2


@BOTH
def test_a_hint_that_is_too_long_goes_to_the_caller(read: Read) -> None:
    full = Refusal(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size; try again in 40 s")
    with fake_server(full) as server, pytest.raises(QueueFull) as raised:
        read(server.url)
    assert raised.value.retry_after == 40
    assert len(server.requests) == 1


@BOTH
@pytest.mark.parametrize("seed", [None, 7])
def test_a_request_that_may_have_begun_is_sent_again_only_with_a_seed(read: Read, seed: int | None) -> None:
    """The second picture is the first one then."""

    def broken(context: Any) -> Iterator[Any]:
        yield event("progress", step=1, steps=4, seconds=0.1, seconds_left=0.3)
        context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    with fake_server(broken, stream_of()) as server:
        if seed is None:
            with pytest.raises(Unavailable, match="Socket closed"):
                read(server.url)
            assert len(server.requests) == 1
        else:
            assert isinstance(read(server.url, seed=seed)[-1], Result)
            assert server.inputs(0) == server.inputs(1)
            assert server.requests[0].id == server.requests[1].id


@BOTH
def test_the_next_server_is_asked_where_one_is_away(read: Read) -> None:
    with fake_server(stream_of()) as server:
        assert isinstance(read(["127.0.0.1:9", server.url])[-1], Result)


@BOTH
def test_all_attempts_together_keep_the_deadline_of_the_client(read: Read) -> None:
    full = Refusal(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size; try again in 0.8 s")
    with fake_server(full) as server, pytest.raises(QueueFull):
        read(server.url, settings={"deadline": 0.5})
    assert len(server.requests) == 1


@BOTH
def test_a_server_that_does_not_answer_is_given_up(read: Read) -> None:
    held = threading.Event()
    with fake_server(stream_of(hold=held)) as server:
        with pytest.raises(DeadlineExceeded, match="within the deadline"):
            read(server.url, settings={"deadline": 0.5})
        assert server.ended.wait(5)
        held.set()


def cancelled_by_call(client: Client) -> None:
    stream = client.stream("a fox")
    assert isinstance(next(stream), Queued)
    stream.cancel()
    with pytest.raises(Cancelled):
        list(stream)


def cancelled_by_another_thread(client: Client) -> None:
    stream = client.stream("a fox")
    timer = threading.Timer(0.2, stream.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        list(stream)


def cancelled_by_leaving_the_block(client: Client) -> None:
    with client.stream("a fox") as stream:
        next(stream)


def cancelled_by_dropping(client: Client) -> None:
    gc.disable()  # the last reference is what counts
    try:
        for _ in client.stream("a fox"):
            break
    finally:
        gc.enable()


def cancelled_by_closing(client: Client) -> None:
    stream = client.stream("a fox")
    next(stream)
    client.close()
    with pytest.raises(Cancelled, match="the client was closed"):
        list(stream)


@pytest.mark.parametrize(
    "stop",
    [
        cancelled_by_call,
        cancelled_by_another_thread,
        cancelled_by_leaving_the_block,
        cancelled_by_dropping,
        cancelled_by_closing,
    ],
)
def test_a_stream_that_nobody_wants_ends_on_the_server(stop: Callable[[Client], None]) -> None:
    held = threading.Event()
    with fake_server(stream_of(hold=held)) as server, Client(server.url) as client:
        stop(client)
        assert server.ended.wait(5)
        held.set()


def test_cancelling_while_it_waits_to_try_again(caplog: pytest.LogCaptureFixture) -> None:
    full = Refusal(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size; try again in 10 s")
    with fake_server(full) as server, Client(server.url) as client:
        stream = client.stream("a fox")
        threading.Timer(0.2, stream.cancel).start()
        started = time.monotonic()
        with pytest.raises(Cancelled):
            next(stream)
        assert time.monotonic() - started < 5


def test_a_cancelled_stream_sends_nothing() -> None:
    with fake_server(stream_of()) as server, Client(server.url) as client:
        stream = client.stream("a fox")
        stream.cancel()
        with pytest.raises(Cancelled):
            next(stream)
    assert not server.requests


def test_cancelling_after_the_result_does_nothing() -> None:
    with fake_server(stream_of()) as server, Client(server.url) as client, client.stream("a fox") as stream:
        assert stream.result()[0].data == b"image 0"
        stream.cancel()
        assert stream.result()[0].data == b"image 0"
        assert list(stream) == []
    assert len(server.requests) == 1


def test_a_wrong_parameter_is_named_before_anything_is_sent() -> None:
    with fake_server(stream_of()) as server, Client(server.url) as client:
        with pytest.raises(InvalidRequest, match=r"^preview: 1000 is out of range; allowed: 0 to 512"):
            client.stream("a fox", preview=1000)
        with pytest.raises(InvalidRequest, match=r"^priority: 'high' is unknown"):
            client.stream("a fox", priority="high")  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match=r"^slice_steps: unknown parameter"):
            client.generate("a fox", slice_steps=3)  # type: ignore[call-arg]
    assert not server.requests


def test_async_streams_are_cancelled_with_their_task() -> None:
    async def cancel_task(client: AsyncClient) -> None:
        async def read() -> None:
            async for _ in client.stream("a fox"):
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def cancel_stream(client: AsyncClient) -> None:
        stream = client.stream("a fox")
        asyncio.get_running_loop().call_later(0.2, stream.cancel)
        with pytest.raises(Cancelled):
            await stream.result()

    async def leave_block(client: AsyncClient) -> None:
        async with client.stream("a fox") as stream:
            await anext(stream)

    async def run(stop: Callable[[AsyncClient], Any], server: FakeServer) -> None:
        async with AsyncClient(server.url) as client:
            await stop(client)
            assert await asyncio.to_thread(server.ended.wait, 5)

    for stop in (cancel_task, cancel_stream, leave_block):
        held = threading.Event()
        with fake_server(stream_of(hold=held)) as server:
            asyncio.run(run(stop, server))
            held.set()


def test_many_async_streams_share_a_client() -> None:
    async def read_all(url: str) -> list[bytes]:
        async with AsyncClient(url) as client:
            results = await asyncio.gather(*(client.stream("a fox").result() for _ in range(12)))
            return [images[0].data for images in results]

    with fake_server(stream_of()) as server:
        assert asyncio.run(read_all(server.url)) == [b"image 0"] * 12


def test_result_says_again_that_there_is_none() -> None:
    async def twice(url: str) -> None:
        async with AsyncClient(url) as client:
            stream = client.stream("a fox")
            stream.cancel()
            for _ in range(2):
                with pytest.raises(Cancelled):
                    await stream.result()

    with fake_server(stream_of()) as server, Client(server.url) as client:
        stream = client.stream("a fox")
        stream.cancel()
        for _ in range(2):
            with pytest.raises(Cancelled):
                stream.result()
        asyncio.run(twice(server.url))


async def closed(client: AsyncClient, task: asyncio.Task[Any], stream: Any) -> None:
    await client.close()
    with pytest.raises(Cancelled, match="the client was closed"):
        await task


async def cancelled_twice(client: AsyncClient, task: asyncio.Task[Any], stream: Any) -> None:
    stream.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("stop", [closed, cancelled_twice])
def test_only_a_task_that_is_cancelled_ends_as_cancelled(stop: Callable[..., Any]) -> None:
    async def run(server: FakeServer) -> None:
        async with AsyncClient(server.url) as client:
            stream = client.stream("a fox")
            task = asyncio.create_task(stream.result())
            while not server.requests:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            await asyncio.wait_for(stop(client, task, stream), 5)

    held = threading.Event()
    with fake_server(stream_of(hold=held)) as server:
        asyncio.run(run(server))
        held.set()


@BOTH
def test_the_deadline_counts_from_the_first_attempt(read: Read) -> None:
    def broken(context: Any) -> Iterator[Any]:
        time.sleep(0.5)
        yield event("progress", step=1, steps=4, seconds=0.1, seconds_left=0.3)
        context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    with fake_server(broken, stream_of()) as server:
        read(server.url, seed=7, deadline=30)
    assert server.inputs(0)["deadline"] == 30
    assert 28 < server.inputs(1)["deadline"] < 29.6
