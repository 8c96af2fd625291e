"""`sdxl_stream` and what `diffuse` does for it, without Triton."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.contract.models import DIFFUSE, PREPROCESS
from intaglio.contract.ports import string_tensor
from intaglio.triton_models import diffuse as diffuse_model
from intaglio.triton_models.diffuse import DiffuseModel
from intaglio.triton_models.stages import PostprocessModel, PreprocessModel
from intaglio.triton_models.stream import StreamModel
from intaglio.triton_models.stream_watch import StreamWatch, WatchedStream

from .conftest import Log, Request, Sender, opened, responded
from .metric_fakes import shown


@pytest.fixture
def models(log: Log, build: Path) -> Iterator[dict[str, Any]]:
    """The three stages and the model that calls them."""
    for model in (PreprocessModel(), DiffuseModel(), PostprocessModel()):
        log.models[model.spec.name] = opened(model)
    log.models["sdxl_stream"] = opened(StreamModel())
    yield log.models
    for name in ("sdxl_stream", "preprocess", "diffuse", "postprocess"):
        log.models[name].finalize()


def ask(model: Any, tensors: dict[str, Any]) -> Sender:
    request = Request(tensors, ["image", "metadata", "timings"])
    assert model.execute([request]) is None
    return request.sender


def event_of(response: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output_of(response, "event")[0])
    return found


def output_of(response: Any, name: str) -> Any:
    return next(tensor.values for tensor in response.output_tensors if tensor.tensor_name == name)


def test_events_and_the_picture_of_the_stages(log: Log, models: dict[str, Any], request_tensors: Any) -> None:
    asked = request_tensors(prompt="a fox", seed=3, steps=5)
    own = {"slice_steps": np.array([2], np.int32), "preview": np.array([16], np.int32)}
    sender = ask(models["sdxl_stream"], asked | own)
    assert sender.done.wait(60)
    *news, last = sender.sent
    events = [event_of(response) for response in news]
    steps = [event["step"] for event in events if event["kind"] == "progress"]
    assert steps == [0, 2, 4, 5]
    assert [event["step"] for event in events if event["kind"] == "preview"] == [2, 4, 5]
    assert event_of(last) == {"kind": "result"}
    prepared = responded(models["preprocess"], Request(asked, [port.name for port in PREPROCESS.outputs]))
    tensors = {tensor.tensor_name: tensor.values for tensor in prepared.output_tensors}
    known = {name: value for name, value in tensors.items() if name in {port.name for port in DIFFUSE.inputs}}
    drawn = responded(models["diffuse"], Request(known, ["pixels"]))
    finishing = {name: tensors[name] for name in ("output_format", "metadata")}
    finishing["pixels"] = output_of(drawn, "pixels")
    image = output_of(responded(models["postprocess"], Request(finishing, ["image"])), "image")
    assert list(output_of(last, "image")) == list(image)
    assert log.errors() == []


def test_a_caller_that_is_gone_stops_its_picture(
    log: Log, models: dict[str, Any], request_tensors: Any
) -> None:
    sender = ask(models["sdxl_stream"], request_tensors(prompt="a fox", steps=50, num_images=4))
    while not sender.sent:
        time.sleep(0.01)
    sender.cancelled = True
    assert sender.done.wait(60)
    kinds = [event_of(response)["kind"] for response in sender.sent]
    assert set(kinds) <= {"queued", "progress"}, "no result, and no error that nobody reads"
    models["diffuse"]._reporter.report()
    counted = {name: value for (name, _), value in shown().items()}
    assert counted["intaglio_requests_cancelled_total"] == 1
    assert counted["intaglio_requests_failed_total"] == 0
    assert counted["intaglio_steps_saved_total"] > 0
    assert log.errors() == []


def test_who_is_gone_before_the_queue_takes_no_place_in_it(
    log: Log, models: dict[str, Any], request_tensors: Any
) -> None:
    request = Request(request_tensors(prompt="a fox"), ["image", "metadata", "timings"])
    request.sender.cancelled = True
    models["sdxl_stream"].execute([request])
    assert request.sender.done.wait(60)
    assert request.sender.sent == []
    models["diffuse"]._reporter.report()
    counted = {name: value for (name, _), value in shown().items()}
    assert counted["intaglio_requests_total"] == 0, "it was never queued"
    assert log.errors() == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": np.array([0], np.int32)}, "steps: 0 is out of range"),
        ({"slice_steps": np.array([0], np.int32)}, "slice_steps: 0 is out of range; allowed: 1 to 150"),
        ({"preview": np.array([513], np.int32)}, "preview: 513 is out of range; allowed: 0 to 512"),
        ({"deadline": np.array([np.nan], np.float32)}, "deadline: nan is out of range"),
        ({"queue_timeout": np.array([0], np.float32)}, "queue_timeout: 0.0 is out of range"),
        (
            {"priority": string_tensor("high")},
            "priority: 'high' is unknown; allowed: one of interactive, batch",
        ),
    ],
)
def test_the_first_error_is_the_answer(
    models: dict[str, Any], request_tensors: Any, change: dict[str, Any], says: str
) -> None:
    sender = ask(models["sdxl_stream"], request_tensors(prompt="a fox") | change)
    assert sender.done.wait(60)
    (response,) = sender.sent
    assert (response.error.code, str(response.error).startswith(says)) == ("invalid", True)


@pytest.fixture
def picture(models: dict[str, Any], request_tensors: Any) -> dict[str, Any]:
    """The tensors of a long picture for `diffuse`."""
    known = {port.name for port in DIFFUSE.inputs}
    names = [port.name for port in PREPROCESS.outputs if port.name in known]
    asked = request_tensors(prompt="a fox", steps=50, num_images=4)
    made = responded(models["preprocess"], Request(asked, names))
    return {tensor.tensor_name: tensor.values for tensor in made.output_tensors}


def watching(job: str, **own: Any) -> dict[str, Any]:
    return {"job": string_tensor(job), **own}


def test_a_job_has_one_picture(log: Log, models: dict[str, Any], picture: dict[str, Any]) -> None:
    diffuse = models["diffuse"]
    first = responded(diffuse, Request(picture | watching("one"), ["event", "pixels"]))
    assert event_of(first)["kind"] == "progress"
    again = responded(diffuse, Request(picture | watching("one"), ["event", "pixels"]))
    assert "job: this id is in use" in str(again.error)
    other = responded(diffuse, Request(watching("two"), ["event", "pixels"]))
    assert "job: this id is unknown" in str(other.error)
    stopping = Request(watching("one", stop=np.array([True])), ["event"])
    assert event_of(responded(diffuse, stopping)) == {"kind": "stopping"}
    while (last := responded(diffuse, Request(watching("one"), ["event", "pixels"]))).error is None:
        assert event_of(last)["kind"] == "progress"
    assert last.error.code == "cancelled"
    assert log.errors() == []


def test_a_picture_that_nobody_asks_for_is_stopped(
    models: dict[str, Any], picture: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    diffuse = models["diffuse"]
    monkeypatch.setattr(diffuse_model, "_PATIENCE_SECONDS", 0.1)
    assert responded(diffuse, Request(picture | watching("one"), ["event", "pixels"])).error is None
    while diffuse._turnstile.running():
        time.sleep(0.01)
    assert diffuse._counts.now.cancelled == 1
    while "one" in diffuse._watched._jobs:
        time.sleep(0.01)


def test_who_waits_too_long_is_told_and_a_full_queue_says_when_to_come_again(
    models: dict[str, Any], picture: dict[str, Any]
) -> None:
    diffuse = models["diffuse"]
    diffuse._turnstile._capacity = 1
    running = Request(picture | watching("one"), ["event", "pixels"])
    assert responded(diffuse, running).error is None
    waiting = Request(picture | {"queue_timeout": np.array([0.2], np.float32)}, ["pixels"])
    assert diffuse.execute([waiting]) == [None]
    diffuse._pace.finished(6.5)
    full = responded(diffuse, Request(picture, ["pixels"]))
    assert (full.error.code, str(full.error)) == (
        "unavailable",
        "Exceeds maximum queue size; try again in 7 s",
    )
    assert waiting.sender.done.wait(2)
    error = waiting.sender.sent[0].error
    assert (error.code, "its queue_timeout of 0.2 s passed while it waited" in str(error)) == (
        "cancelled",
        True,
    )
    late = Request(picture | watching("two", deadline=np.array([0.1], np.float32)), ["event", "pixels"])
    told = responded(diffuse, late)
    while told.error is None:
        told = responded(diffuse, Request(watching("two"), ["event", "pixels"]))
    assert "its deadline passed while it waited" in str(told.error)
    responded(diffuse, Request(watching("one", stop=np.array([True])), ["event"]))
    counts = diffuse._counts.now
    assert (counts.late, counts.refused, counts.failed) == (2, 1, 0)


def test_more_streams_than_threads_are_refused(models: dict[str, Any], request_tensors: Any) -> None:
    """Immediately, and with the time after which to come again."""
    model = models["sdxl_stream"]
    model._most = 1
    running = ask(model, request_tensors(prompt="a fox", steps=50, num_images=4))
    refused = ask(model, request_tensors(prompt="a fox"))
    assert refused.done.is_set()
    assert "Exceeds maximum queue size; try again in 1 s" in str(refused.sent[0].error)
    running.cancelled = True
    assert running.done.wait(60)


def test_nobody_asks_about_a_caller_after_the_last_response() -> None:
    """Triton has freed what it would look at."""
    stopped: list[WatchedStream] = []
    watch = StreamWatch(stopped.append, failed=lambda: None)
    asked: list[float] = []

    class Counting(Sender):
        def is_cancelled(self) -> bool:
            time.sleep(0.005)
            asked.append(time.monotonic())
            return False

    stream = WatchedStream(Counting(), "job", begun=True)
    watch.start()
    with watch.watching(stream):
        while not asked:
            time.sleep(0.001)
    over = time.monotonic()
    time.sleep(0.1)
    watch.close()
    assert max(asked) <= over
    assert not stream.look()
    assert stopped == []


def test_threads_end_with_their_requests(models: dict[str, Any], request_tensors: Any) -> None:
    before = threading.active_count()
    senders = [ask(models["sdxl_stream"], request_tensors(prompt="a fox", steps=1)) for _ in range(8)]
    for sender in senders:
        assert sender.done.wait(60)
    while threading.active_count() > before:
        time.sleep(0.01)
    assert models["sdxl_stream"]._threads == set()


def test_a_picture_whose_preview_fails_is_not_drawn_to_its_end(
    models: dict[str, Any], request_tensors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("intaglio.triton_models.stream.preview_files", fail)
    asked = request_tensors(prompt="a fox", steps=50, num_images=4)
    sender = ask(models["sdxl_stream"], asked | {"preview": np.array([16], np.int32)})
    assert sender.done.wait(60)
    assert sender.sent[-1].error.code == "internal"
    diffuse = models["diffuse"]
    while diffuse._turnstile.running():
        time.sleep(0.01)
    counts = diffuse._counts.now
    assert (counts.cancelled, counts.finished) == (1, 0)
