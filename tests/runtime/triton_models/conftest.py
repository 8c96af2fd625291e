"""A stand-in for `triton_python_backend_utils`, and a build that the models serve."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from intaglio.builds.manifest import write_manifest
from intaglio.triton_models.stages import StageModel

from .metric_fakes import Family


class TritonError(Exception):
    INTERNAL, INVALID_ARG, UNAVAILABLE, CANCELLED = "internal", "invalid", "unavailable", "cancelled"

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


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


@dataclass
class Request:
    tensors: dict[str, Any]
    wanted: list[str]
    cancelled: bool = False
    id: str = ""

    def request_id(self) -> str:
        return self.id

    def inputs(self) -> list[Tensor]:
        return [Tensor(name, value) for name, value in self.tensors.items()]

    def requested_output_names(self) -> list[str]:
        return self.wanted

    def is_cancelled(self) -> bool:
        return self.cancelled


@dataclass
class Log:
    lines: list[str] = field(default_factory=list)

    def log_error(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def _no_metrics() -> None:
    Family.shown.clear()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    module: Any = ModuleType("triton_python_backend_utils")
    module.TritonError, module.Tensor, module.InferenceResponse, module.Logger = (
        TritonError,
        Tensor,
        Response,
        log,
    )
    module.MetricFamily = Family
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


def opened(model: StageModel, **parameters: str) -> StageModel:
    config = {"parameters": {name: {"string_value": value} for name, value in parameters.items()}}
    model.initialize({"model_config": json.dumps(config), "model_repository": "/models/x"})
    return model
