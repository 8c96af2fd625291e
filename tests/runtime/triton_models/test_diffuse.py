"""The model `diffuse` and its one thread, against a stand-in for `triton_python_backend_utils`."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from intaglio.contract.config import Execution
from intaglio.contract.models import DIFFUSE, PREPROCESS
from intaglio.errors import DeviceFailed, SwapFailed, Unavailable
from intaglio.loras.switch import SwapCounts
from intaglio.stages.diffuse.controlnets import ControlNetCounts
from intaglio.stages.diffuse.stage import Diffuse
from intaglio.telemetry.journal import Telemetry
from intaglio.telemetry.settings import TelemetrySettings
from intaglio.triton_models.diffuse import DEVICE_FAILED_STATUS, DiffuseModel
from intaglio.triton_models.jobs import Job
from intaglio.triton_models.places import instance_gpu
from intaglio.triton_models.replies import Single
from intaglio.triton_models.stages import PreprocessModel
from intaglio.triton_models.turnstile import Entry

from ..conftest import TorchBound
from .conftest import Log, Request, Sender, opened
from .metric_fakes import shown


def bare(folder: Path, *, version: str = "1", overtakes: int = 1) -> Any:
    """The model without engines; its reports are those of a build that swaps no LoRAs."""
    model: Any = DiffuseModel()
    model._pb = sys.modules["triton_python_backend_utils"]
    model._telemetry = Telemetry(TelemetrySettings(), stage="diffuse")
    model._folder, model._version = folder, version
    controlnets = SimpleNamespace(counts=ControlNetCounts(), resident=("controlnet.pose",))
    model._diffuse = SimpleNamespace(
        loras=None,
        controlnets=controlnets,
        needs_swap=lambda wish: wish != "",
        use_in_this_thread=lambda: None,
    )
    model._execution = Execution(overtakes=overtakes)
    model._make_queue(capacity=0)
    model._reporter = SimpleNamespace(report=lambda: None)
    return model


def put(model: Any, count: int = 1) -> list[Sender]:
    """Queue jobs of one step whose drawings are nothing; where their answers go."""
    senders = [Sender() for _ in range(count)]
    for sender in senders:
        reply = Single(lambda response, sender=sender: model._send(sender, response), lambda: False)
        drawing: Any = SimpleNamespace(step=0, request=SimpleNamespace(begin=0, end=1), seconds={})
        assert model._turnstile.put(Entry(Job(drawing, reply, ["pixels"]), ""))
    return senders


@pytest.mark.parametrize(
    ("instance", "gpu"),
    [
        ({"model_instance_kind": "GPU", "model_instance_device_id": "3"}, 3),
        ({"model_instance_kind": "CPU", "model_instance_device_id": "0"}, 1),
    ],
)
def test_the_engines_run_on_the_card_of_tritons_instance(
    log: Log, monkeypatch: pytest.MonkeyPatch, tiny: Any, instance: dict[str, str], gpu: int
) -> None:
    """And the thread that answers uses that card."""
    seen: list[Any] = []

    class Stage:
        loras = None
        needs_swap = None

        def __init__(self, manifest: Any, folder: Path) -> None:
            seen.append(manifest.execution.gpu)

        def read(self, tensors: Any) -> None: ...
        def __enter__(self) -> Stage:
            return self

        def __exit__(self, *_: object) -> None: ...
        def warm_up(self) -> None: ...
        def use_in_this_thread(self) -> None:
            seen.append(threading.current_thread().name)

    monkeypatch.setattr("intaglio.stages.diffuse.stage.Diffuse", Stage)
    execution = tiny.manifest.execution.model_copy(update={"gpu": 1})
    model: Any = bare(tiny.folder)
    model._gpu = instance_gpu(instance)
    model._parameters = {}
    model._opened = contextlib.ExitStack()
    model.open_build(tiny.manifest.model_copy(update={"execution": execution}), tiny.folder)
    answering = threading.Thread(target=model._serve, name="diffuse")
    answering.start()
    model._turnstile.close()
    answering.join(5)
    assert seen == [gpu, "diffuse"]


def test_a_card_that_the_thread_cannot_use_ends_the_process(
    log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else requests would wait for a thread that is no more."""
    model = bare(tmp_path)

    def fail() -> None:
        raise DeviceFailed("cudaSetDevice: the device is lost")

    ended: list[int] = []
    model._diffuse.use_in_this_thread = fail
    monkeypatch.setattr(os, "_exit", ended.append)
    (sender,) = put(model)
    model._serve()
    assert ended == [DEVICE_FAILED_STATUS]
    assert "cudaSetDevice" in str(sender.sent[0].error)


def test_metrics_wait_until_a_version_is_alone(log: Log, tmp_path: Path) -> None:
    """Triton destroys the metrics of one name with the first version that goes."""
    for folder in ("1", "2"):
        (tmp_path / folder).mkdir()
    model = bare(tmp_path, version="2")
    model._counts.waited(0.5)
    model._counts.ended("finished", steps_left=0)
    assert model._open_metrics() is None
    (tmp_path / "1").rmdir()
    report = model._open_metrics()
    report()
    assert shown()["intaglio_requests_total", ""] == 1, "what was counted before"


def test_a_queue_is_reported_while_a_request_is_computed(log: Log, tmp_path: Path) -> None:
    model = bare(tmp_path)
    report = model._open_metrics()
    put(model, 3)
    assert model._turnstile.take(lambda wish: False) is not None
    report()
    assert shown()["intaglio_queue_depth", ""] == 2
    assert shown()["intaglio_queue_oldest_wait_seconds", ""] > 0
    assert shown()["intaglio_running", ""] == 1


def test_requests_are_answered_where_loras_are_fused_too(log: Log, build: Path, request_tensors: Any) -> None:
    """One queue for both kinds of build, so one set of metrics."""
    preprocess: Any = opened(PreprocessModel())
    names = [port.name for port in DIFFUSE.inputs if port.name in {one.name for one in PREPROCESS.outputs}]
    made = preprocess._respond(Request(request_tensors(prompt="a fox", steps=1), names))
    model: Any = opened(DiffuseModel())
    let_in: list[int] = []
    read = model._read
    model._read = lambda tensors: let_in.append(1) or read(tensors)
    request = Request({tensor.tensor_name: tensor.values for tensor in made.output_tensors}, ["pixels"])
    assert model.execute([request]) == [None]
    assert request.sender.done.wait(20)
    assert request.sender.sent[0].error is None
    assert len(let_in) == 1, "what is published while it waits does not refuse it"
    assert shown()["intaglio_requests_total", ""] == 1
    model.finalize()
    assert log.errors() == []
    assert shown() == {}, "a metric that outlives the model crashes its process"


def test_a_caller_who_cannot_be_told_its_place_costs_nobody_a_picture(
    log: Log, build: Path, request_tensors: Any
) -> None:
    """The request that moves it back is queued already: a refusal would be its first of two answers."""
    preprocess: Any = opened(PreprocessModel())
    names = [port.name for port in DIFFUSE.inputs if port.name in {one.name for one in PREPROCESS.outputs}]
    made = preprocess._respond(Request(request_tensors(prompt="a fox", steps=1), names))
    model: Any = opened(DiffuseModel())
    failed: list[int] = []

    def fail() -> None:
        failed.append(1)
        raise RuntimeError("no memory for a response")

    model._watch.show_places = fail
    model._turnstile.running = lambda *_: 1
    request = Request({tensor.tensor_name: tensor.values for tensor in made.output_tensors}, ["pixels"])
    model.execute([request])
    assert request.sender.done.wait(20)
    model.finalize()
    assert failed
    assert [response.error for response in request.sender.sent] == [None]
    assert any("no memory for a response" in str(line) for line in log.errors())


def test_what_is_refused_does_not_wait(log: Log, build: Path) -> None:
    """Neither behind a picture nor in a place of the queue."""
    model: Any = opened(DiffuseModel())
    requests = [Request({"state": np.zeros((4, 64, 4, 12, 8), np.float32)}, ["pixels"]) for _ in range(40)]
    queued: list[Any] = []
    model._turnstile.put = queued.append
    model.execute(requests)
    assert {request.sender.sent[0].error.code for request in requests} == {"invalid"}
    assert queued == []
    model.finalize()
    assert log.errors() == []


@pytest.mark.parametrize("wrapped", [False, True], ids=["as it is", "behind a failed swap"])
def test_after_the_card_failed_the_process_ends(
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    wrapped: bool,
) -> None:
    model = bare(tmp_path)

    def fail(entry: Any) -> None:
        try:
            raise DeviceFailed("cudaMemcpyAsync: an illegal memory access was encountered")
        except DeviceFailed as error:
            if wrapped:
                raise SwapFailed("cannot apply mara") from error
            raise

    def end(status: int) -> None:
        assert all(sender.sent for sender in senders), "everybody was answered before"
        raise SystemExit(status)

    monkeypatch.setattr(model._drawer, "draw", fail)
    monkeypatch.setattr(os, "_exit", end)
    senders = put(model, 3)
    with pytest.raises(SystemExit) as ended:
        model._serve()
    assert ended.value.code == DEVICE_FAILED_STATUS
    assert {sender.sent[0].error.code for sender in senders} == {"unavailable"}
    assert all("illegal memory access" in str(sender.sent[0].error) for sender in senders)
    assert not model._turnstile.put(Entry(None, "")), "nobody waits for a process that ends"
    (line,) = caplog.messages
    assert "2 waiting requests were refused; this process ends with status 74" in line


class LostCard:
    """The backend of a stage whose card fails in one place; a library then often says only that it failed."""

    def __init__(self, stage: Any, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lost = False
        self.place = place
        backend = stage._backend
        monkeypatch.setattr(backend, "synchronize", self.synchronize)
        if place == "refit":
            stage.loras = SimpleNamespace(ensure=self.fail, digest="", resident=(), counts=SwapCounts())
        elif place == "memory":
            monkeypatch.setattr(backend, "upload", self.fail)
        else:
            run = TorchBound.run
            monkeypatch.setattr(TorchBound, "run", lambda bound: self.run(bound, run))

    def run(self, bound: Any, run: Any) -> None:
        if bound.engine.network.name == self.place:
            self.fail()
        run(bound)

    def fail(self, *_: Any) -> None:
        self.lost = True
        raise RuntimeError("the library says that something failed")

    def synchronize(self) -> None:
        if self.lost:
            raise DeviceFailed("cudaStreamSynchronize: an illegal memory access was encountered")


@pytest.mark.parametrize(
    "place",
    [
        "text_encoder",
        "text_encoder_2",
        "unet_context",
        "unet",
        "controlnet_context.pose",
        "controlnet.pose",
        "vae_decoder",
        "memory",
        "refit",
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_wherever_the_card_fails_the_process_ends(
    log: Log, build: Path, request_tensors: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Also where the error that is raised does not say so."""
    preprocess: Any = opened(PreprocessModel())
    names = [port.name for port in DIFFUSE.inputs if port.name in {one.name for one in PREPROCESS.outputs}]
    controls = '[{"type": "pose", "pose": "waving-01"}]'
    asked = request_tensors(prompt="a fox", steps=1, controls=controls)
    made = preprocess._respond(Request(asked, names))
    monkeypatch.setattr(Diffuse, "warm_up", lambda stage: None)
    model: Any = opened(DiffuseModel())
    LostCard(model._diffuse, place, monkeypatch)
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", end)
    request = Request({tensor.tensor_name: tensor.values for tensor in made.output_tensors}, ["pixels"])
    model.execute([request])
    model._thread.join(20)
    assert statuses == [DEVICE_FAILED_STATUS]
    error = request.sender.sent[0].error
    assert (error.code, "illegal memory access" in str(error)) == ("unavailable", True)
    model.finalize()


def test_a_request_without_memory_does_not_end_the_process(
    log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = bare(tmp_path)
    answers: list[Any] = [Unavailable("cudaMalloc: out of memory"), {"pixels": "a picture"}]

    def draw(entry: Any) -> Any:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(model._drawer, "draw", draw)
    senders = put(model, 2)
    model._turnstile.close()
    model._serve()
    assert senders[0].sent[0].error.code == "unavailable"
    assert senders[1].sent[0].output_tensors[0].values == "a picture"
