"""`sdxl_stream` in the real Triton: pictures, events, cancel, deadlines, the queue."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image

from intaglio.serving.server import Server

from .streams import PlainStream, streamed, unary
from .test_metrics import metrics_of

LONG: Any = {"prompt": "a person in a room", "seed": 3, "steps": 60}
SHORT: Any = {"prompt": "a person waving", "seed": 4, "steps": 2}
REFERENCE: Any = {"prompt": "a person in a room", "seed": 1, "steps": 3}
POSE = [{"type": "pose", "pose": "waving-01"}]
NIGHT = [{"id": "night", "weight": 0.8}]
ENDLESS: Any = LONG | {"steps": 150, "num_images": 4, "controls": POSE, "slice_steps": 1}
"""The most that a request may ask for: on no machine does it end by itself while a test waits for something
else. One that is slow comes soon to the end of a slice.
"""


@contextmanager
def counted(server: Server, *, requests: int) -> Iterator[dict[str, float]]:
    """How much each counter grows until `requests` have ended, which begin in the block."""
    grown: dict[str, float] = {}
    before = metrics_of(server)
    yield grown
    until = time.monotonic() + 30
    while (after := metrics_of(server))["requests_total"] < before["requests_total"] + requests:
        assert time.monotonic() < until, "they do not end"
        time.sleep(0.05)
    grown |= {name: after[name] - before[name] for name in after if name.endswith("_total")}
    grown["running"] = after["running"]


@contextmanager
def short_ones(server: Server, **asked: Any) -> Iterator[None]:
    """Two clients have one short picture after another drawn, from before the block to its end."""
    over = threading.Event()
    drawn = threading.Semaphore(0)

    def draw() -> set[str]:
        outcomes = set()
        while not over.is_set():
            outcomes.add(streamed(server.grpc_url, **SHORT, **asked).outcome)
            drawn.release()
        return outcomes

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(draw) for _ in range(2)]
        try:
            assert drawn.acquire(timeout=60)
            yield
        finally:
            over.set()
    assert [client.result() for client in clients] == [{"result"}] * 2


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 7, "scheduler": "dpmpp_2m_karras", "num_images": 2},
        {"steps": 4, "scheduler": "dpmpp_sde", "loras": NIGHT, "slice_steps": 2},
        {"steps": 6, "controls": POSE, "control_every": 3, "guidance_begin": 0.4, "slice_steps": 1},
    ],
    ids=["several images", "two calls a step, LoRAs", "controls, a guidance window"],
)
def test_a_streamed_picture_is_that_of_sdxl(server: Server, values: dict[str, Any]) -> None:
    """Byte for byte, while other pictures are drawn between its slices."""
    asked = {"prompt": "a person in a room", "seed": 5, **values}
    own = {name: value for name, value in asked.items() if name != "slice_steps"}
    expected = unary(server.grpc_url, **own)
    loras = {"loras": values["loras"]} if "loras" in values else {}
    with short_ones(server, **loras):
        found = streamed(server.grpc_url, **asked)
    assert found.images == expected
    calls = found.of("progress")[0]["steps"]
    assert [event["step"] for event in found.of("progress")] == progress_steps(values, calls)


def progress_steps(values: dict[str, Any], calls: int) -> list[int]:
    size = values.get("slice_steps", 5)
    if "control_every" in values:  # guidance begins with step 3; ControlNets run in steps 0, 3
        return [0, 3, 6]
    return [0, *range(size, calls, size), calls]


def test_previews_show_the_picture_as_it_comes(server: Server) -> None:
    found = streamed(server.grpc_url, **REFERENCE, slice_steps=1, preview=96, num_images=2)
    assert [event["step"] for event in found.of("preview")] == [1, 2, 3]
    for files in found.previews:
        pictures = [Image.open(io.BytesIO(data)) for data in files]
        assert [(picture.format, max(picture.size)) for picture in pictures] == [("JPEG", 96)] * 2
    assert len({data for files in found.previews for data in files}) == 6


def test_cancel_frees_the_card_after_the_slice(server: Server) -> None:
    reference = streamed(server.grpc_url, **REFERENCE).images
    with counted(server, requests=1) as grown, PlainStream(server.grpc_url, **ENDLESS) as stream:
        seen = stream.until("progress")
        while len(seen.of("progress")) < 3:
            stream.next_into(seen)
    assert (grown["requests_cancelled_total"], grown["requests_failed_total"]) == (1, 0)
    assert grown["running"] == 0
    assert grown["steps_total"] + grown["steps_saved_total"] == seen.events[-1]["steps"]
    # 2 when the caller leaves, the slice that runs, and a few more while the word travels on a busy machine.
    assert grown["steps_total"] <= 8
    assert streamed(server.grpc_url, **REFERENCE).images == reference


def test_deadlines_hold_while_a_request_waits_and_between_slices(server: Server) -> None:
    waiting: Any = LONG | {"steps": 150, "priority": "batch"}
    with counted(server, requests=3) as grown, ThreadPoolExecutor(2) as pool:
        with PlainStream(server.grpc_url, **ENDLESS, deadline=5) as stream:
            late = stream.until("progress")
            queued = pool.submit(streamed, server.grpc_url, **waiting, queue_timeout=0.3)
            unhurried = pool.submit(streamed, server.grpc_url, **waiting, deadline=1.5)
            while stream.next_into(late):
                pass
        assert "its queue_timeout of 0.3 s passed while it waited" in queued.result().error
        assert "its deadline passed while it waited" in unhurried.result().error
        assert "its deadline passed at step" in late.error
    assert (grown["requests_late_total"], grown["requests_failed_total"]) == (3, 0)


def test_a_short_request_waits_for_one_slice_of_a_long_one(server: Server) -> None:
    with PlainStream(server.grpc_url, **ENDLESS) as stream:
        seen = stream.until("progress")
        stream.next_into(seen)
        with ThreadPoolExecutor(1) as pool:
            short = pool.submit(streamed, server.grpc_url, **SHORT)
            while not short.done():
                stream.next_into(seen)
        assert short.result().outcome == "result"
    waited = [event for event in seen.of("progress") if event["waiting"]]
    assert len(waited) <= 1, "the slice that was drawn when it came"


def test_a_place_in_the_queue_is_told(server: Server) -> None:
    waiting: Any = LONG | {"priority": "batch"}  # after every slice of the one that runs
    with PlainStream(server.grpc_url, **ENDLESS) as running:
        running.until("progress")
        with PlainStream(server.grpc_url, **waiting | {"steps": 120}) as second:
            assert second.until("queued").events[-1] == {"kind": "queued", "place": 0, "waiting": 1}
            with PlainStream(server.grpc_url, **waiting | {"steps": 100}) as first:
                assert first.until("queued").events[-1] == {"kind": "queued", "place": 0, "waiting": 2}
                assert second.until("queued").events[-1] == {"kind": "queued", "place": 1, "waiting": 2}
            assert second.until("queued").events[-1] == {"kind": "queued", "place": 0, "waiting": 1}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 151}, "steps: 151 is out of range; allowed: 1 to 150"),
        ({"width": 12}, "width: 12 is not a multiple of 8"),
    ],
)
def test_a_wrong_request_is_refused_in_words(server: Server, change: dict[str, Any], says: str) -> None:
    found = streamed(server.grpc_url, **SHORT | change)
    assert says in found.error
    assert found.events == []
