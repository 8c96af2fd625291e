"""The Triton layer against a stand-in for `triton_python_backend_utils`, the real stages behind it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from intaglio.builds.manifest import write_manifest
from intaglio.contract.models import ENSEMBLE_STEPS, MODELS, POSTPROCESS
from intaglio.triton_models.diffuse import DiffuseModel
from intaglio.triton_models.stages import PostprocessModel, PreprocessModel, StageModel
from intaglio.triton_models.turnstile import Turnstile


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


def test_three_models_make_images_as_the_ensemble_wires_them(
    log: Log, build: Path, request_tensors: Any
) -> None:
    stages = {
        model.spec.name: opened(model) for model in (PreprocessModel(), DiffuseModel(), PostprocessModel())
    }
    tensors = request_tensors(prompt="a fox", seed=0, steps=2, num_images=2)
    for step in ENSEMBLE_STEPS:
        inputs = {name: tensors[source] for name, source in step.input_map.items() if source in tensors}
        (response,) = stages[step.model].execute([Request(inputs, list(step.output_map))])
        assert response.error is None
        spec = next(model for model in MODELS if model.name == step.model)
        for tensor in response.output_tensors:
            dims = spec.output(tensor.tensor_name).dims
            assert len(dims) == tensor.values.ndim
            assert tensor.values.size > 0
            assert all(want in (-1, got) for want, got in zip(dims, tensor.values.shape, strict=True))
        tensors |= {step.output_map[tensor.tensor_name]: tensor.values for tensor in response.output_tensors}
    assert [data[:4] for data in tensors["image"]] == [b"\x89PNG"] * 2
    assert set(json.loads(tensors["timings"][0])) == {
        "preprocess",
        "text_encoders",
        "denoise",
        "vae",
        "postprocess",
    }
    for stage in stages.values():
        stage.finalize()
    assert log.lines == []


def test_a_bad_request_fails_alone(log: Log, build: Path, request_tensors: Any) -> None:
    stage = opened(PreprocessModel())
    good = Request(request_tensors(prompt="a fox"), ["metadata"])
    bad = Request(request_tensors(prompt="a fox", steps=0), ["metadata"])
    gone = Request(request_tensors(prompt="a fox"), ["metadata"], cancelled=True)
    first, second, third, fourth = stage.execute([good, bad, gone, good])
    assert first.error is None
    assert fourth.error is None
    assert (second.error.code, str(second.error)) == (
        "invalid",
        "steps: 0 is out of range; allowed: 1 to 150",
    )
    assert third.error.code == "cancelled"
    assert log.lines == []


def test_the_unforeseen_is_internal_with_the_traceback_in_the_log(log: Log) -> None:
    class Broken(StageModel):
        spec = POSTPROCESS

        def open_stage(self, manifest: Any, folder: Path) -> Any:
            raise AssertionError

    stage: Any = Broken()
    stage._pb = sys.modules["triton_python_backend_utils"]

    def fail(tensors: Any, wanted: Any) -> Any:
        raise ZeroDivisionError("secret path /home/x")

    stage._stage = fail
    (response,) = stage.execute([Request({}, ["image"])])
    assert response.error.code == "internal"
    assert "secret" not in str(response.error)
    assert "secret path" in log.lines[0]
    assert "Traceback" in log.lines[0]


def test_refused_at_load(
    log: Log, build: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failure: Any = sys.modules["triton_python_backend_utils"]
    with pytest.raises(
        failure.TritonModelException,
        match=r"written for build 1111.*rebuild with: intaglio build configs/tiny.yaml",
    ):
        opened(PreprocessModel(), build_key="1" * 64)
    opened(PreprocessModel(), build_key="0" * 64)
    monkeypatch.delenv("INTAGLIO_BUILD")
    with pytest.raises(failure.TritonModelException, match="set INTAGLIO_BUILD"):
        opened(PreprocessModel())
    opened(PreprocessModel(), build=str(build))
    with pytest.raises(failure.TritonModelException, match=r"No such file"):
        opened(PostprocessModel(), build=str(tmp_path))


def test_a_version_that_names_its_build(log: Log, build: Path, tiny: Any, tmp_path: Path) -> None:
    """What is built meanwhile is another version's."""
    model = tmp_path / "preprocess"
    (model / "2").mkdir(parents=True)
    limits = tiny.manifest.limits.model_copy(update={"steps": 7})
    write_manifest(model / "2", tiny.manifest.model_copy(update={"limits": limits}))
    for version, steps in (("1", tiny.manifest.limits.steps), ("2", 7)):
        stage: Any = PreprocessModel()
        stage.initialize({"model_config": "{}", "model_repository": str(model), "model_version": version})
        (response,) = stage.execute(
            [Request({"prompt": np.array([b"a"], object), "steps": np.array([60], np.int32)}, ["metadata"])]
        )
        assert str(response.error).endswith(f"allowed: 1 to {steps}")


def test_figures_wait_until_a_version_is_alone(
    log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Triton destroys the figures of one name with the first version that goes."""
    made: list[Any] = []

    def metrics(pb: Any) -> Any:
        made.append(pb)
        return SimpleNamespace(report=lambda loras, *, waited: None)

    monkeypatch.setattr("intaglio.triton_models.diffuse.LoraMetrics", metrics)
    for folder in ("1", "2"):
        (tmp_path / folder).mkdir()
    model: Any = DiffuseModel()
    model._pb, model._folder, model._version = sys.modules["triton_python_backend_utils"], tmp_path, "2"
    monkeypatch.setattr(
        model, "_respond", lambda request: (tmp_path / "1").rmdir() if request == "second" else None
    )
    monkeypatch.setattr(model, "_send", lambda sender, response: counts.append(len(made)))
    model._turnstile, counts = Turnstile(overtakes=1, capacity=0), []
    for request in ("first", "second", "third"):
        assert model._turnstile.put((request, None), "")
    model._turnstile.close()
    model._serve(SimpleNamespace(digest=""), None)
    assert counts == [0, 1, 1]


def test_only_what_is_asked_for_is_answered(log: Log, build: Path, request_tensors: Any) -> None:
    stage = opened(PreprocessModel())
    (response,) = stage.execute([Request(request_tensors(prompt="a"), ["state", "noise"])])
    assert {tensor.tensor_name for tensor in response.output_tensors} == {"state", "noise"}
    assert response.output_tensors[0].values.dtype == np.float32


def test_figures_that_cannot_be_reported_do_not_end_the_thread_that_answers(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = DiffuseModel()
    model._pb = sys.modules["triton_python_backend_utils"]
    model._turnstile = Turnstile(overtakes=1, capacity=0)
    sent: list[str] = []
    monkeypatch.setattr(model, "_respond", lambda request: f"answer to {request}")
    monkeypatch.setattr(model, "_send", lambda sender, response: sent.append(response))
    for request in ("one", "two"):
        assert model._turnstile.put((request, None), "")
    model._turnstile.close()

    def report(loras: Any, *, waited: float) -> None:
        raise RuntimeError("no metrics")

    model._serve(SimpleNamespace(digest=""), SimpleNamespace(report=report))
    assert sent == ["answer to one", "answer to two"]
    assert all("no metrics" in line for line in log.lines)
    assert len(log.lines) == 2
