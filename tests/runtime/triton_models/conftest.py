"""A stand-in for `triton_python_backend_utils`, and a build that the models serve."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest

from intaglio.builds.manifest import write_manifest
from intaglio.triton_models.model import TritonModel

from .metric_fakes import Family

Model = TypeVar("Model", bound=TritonModel)


class TritonError(Exception):
    INTERNAL, INVALID_ARG, UNAVAILABLE, CANCELLED = "internal", "invalid", "unavailable", "cancelled"

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code

    def message(self) -> str:
        return str(self)


@dataclass
class Tensor:
    tensor_name: str
    values: Any

    def name(self) -> str:
        return self.tensor_name

    def as_numpy(self) -> Any:
        return self.values


@dataclass
class Response:
    output_tensors: list[Tensor]
    error: TritonError | None = None


class Sender:
    """Keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.done = threading.Event()
        self.cancelled = False

    def send(self, response: Any = None, flags: int = 0) -> None:
        if response is not None:
            self.sent.append(response)
        if flags:
            self.done.set()

    def is_cancelled(self) -> bool:
        return self.cancelled


@dataclass
class Request:
    tensors: dict[str, Any]
    wanted: list[str]
    cancelled: bool = False
    id: str = ""
    sender: Sender = field(default_factory=Sender)

    def request_id(self) -> str:
        return self.id

    def inputs(self) -> list[Tensor]:
        return [Tensor(name, value) for name, value in self.tensors.items()]

    def requested_output_names(self) -> list[str]:
        return self.wanted

    def is_cancelled(self) -> bool:
        return self.cancelled

    def get_response_sender(self) -> Sender:
        return self.sender


@dataclass
class Call:
    """A call from one model to another."""

    model: Any
    call: dict[str, Any]

    def exec(self) -> Answer:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in self.call["inputs"]}
        request = Request(tensors, self.call["requested_output_names"], id=self.call["request_id"])
        return Answer(responded(self.model, request), request.wanted)


@dataclass
class Answer:
    """What a call gives: the outputs that were asked for."""

    response: Response
    wanted: list[str]

    def has_error(self) -> bool:
        return self.response.error is not None

    def error(self) -> Any:
        return self.response.error

    def output_tensors(self) -> list[Tensor]:
        return [tensor for tensor in self.response.output_tensors if tensor.tensor_name in self.wanted]


@dataclass
class Log:
    errors: Callable[[], list[str]]
    """The lines of errors in what the models have logged since it was asked last."""
    models: dict[str, Any] = field(default_factory=dict)
    """Those that other models may call."""

    def called_by(self, **call: Any) -> Call:
        """As `InferenceRequest` of Triton's module."""
        return Call(self.models[call["model_name"]], call)


@pytest.fixture(autouse=True)
def _no_metrics() -> None:
    Family.shown.clear()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Log:
    log = Log(lambda: [line for line in capfd.readouterr().err.splitlines() if " ERROR " in line])
    module: Any = ModuleType("triton_python_backend_utils")
    module.TritonError, module.Tensor, module.InferenceResponse = TritonError, Tensor, Response
    module.MetricFamily = Family
    module.InferenceRequest = log.called_by
    module.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    module.TritonModelException = type("TritonModelException", (Exception,), {})
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    return log


@pytest.fixture
def build(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_manifest(tiny.folder, tiny.manifest)
    monkeypatch.setenv("INTAGLIO_BUILD", str(tiny.folder))
    monkeypatch.setattr("intaglio.stages.diffuse.stage.open_backend", lambda manifest: tiny.backend)
    folder: Path = tiny.folder
    return folder


def responded(model: Any, request: Request, *, seconds: float = 60) -> Any:
    """The one response of `model`, now or later."""
    (response,) = model.execute([request])
    if response is None:
        assert request.sender.done.wait(seconds)
        (response,) = request.sender.sent
    return response


def opened(model: Model, **parameters: str) -> Model:
    config = {"parameters": {name: {"string_value": value} for name, value in parameters.items()}}
    model.initialize({"model_config": json.dumps(config), "model_repository": "/models/x"})
    return model
