"""The Triton layer against a stand-in for `triton_python_backend_utils`, the real stages behind it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from intaglio.contract.models import ENSEMBLE_STEPS, MODELS, POSTPROCESS
from intaglio.errors import EngineMismatch
from intaglio.telemetry.journal import Telemetry
from intaglio.telemetry.settings import TelemetrySettings
from intaglio.triton_models.diffuse import DiffuseModel
from intaglio.triton_models.stages import PostprocessModel, PreprocessModel, StageModel

from .conftest import Log, Request, opened, responded


def test_three_models_make_images_as_the_ensemble_wires_them(
    log: Log, build: Path, request_tensors: Any
) -> None:
    stages = {
        model.spec.name: opened(model) for model in (PreprocessModel(), DiffuseModel(), PostprocessModel())
    }
    tensors = request_tensors(prompt="a fox", seed=0, steps=2, num_images=2)
    for step in ENSEMBLE_STEPS:
        inputs = {name: tensors[source] for name, source in step.input_map.items() if source in tensors}
        response: Any = responded(stages[step.model], Request(inputs, list(step.output_map)))
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
    assert log.errors() == []


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
        "steps: 0 is out of range; allowed: 1 to 50",
    )
    assert third.error.code == "cancelled"
    assert log.errors() == []


def test_the_unforeseen_is_internal_with_the_traceback_in_the_log(
    log: Log, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken(StageModel):
        spec = POSTPROCESS

        def open_stage(self, manifest: Any, folder: Path) -> Any:
            raise AssertionError

    stage: Any = Broken()
    stage._pb = sys.modules["triton_python_backend_utils"]
    stage._telemetry = Telemetry(TelemetrySettings(), stage="postprocess")

    def fail(tensors: Any, wanted: Any) -> Any:
        raise ZeroDivisionError("secret path /home/x")

    stage._stage = fail
    (response,) = stage.execute([Request({}, ["image"], id="12ab\nforged line")])
    assert response.error.code == "internal"
    assert "secret" not in str(response.error)
    received, failed, traceback, *below = capfd.readouterr().err.splitlines()
    assert received.endswith('INFO postprocess received request="12ab forged line"')
    assert 'ERROR postprocess failed request="12ab forged line"' in failed
    assert "error=ZeroDivisionError status=INTERNAL" in failed
    assert 'ERROR postprocess traceback request="12ab forged line"' in traceback
    assert below[0] == "  Traceback (most recent call last):"
    assert below[-1] == "  ZeroDivisionError: secret path /home/x"


def test_only_what_is_asked_for_is_answered(log: Log, build: Path, request_tensors: Any) -> None:
    stage = opened(PreprocessModel())
    (response,) = stage.execute([Request(request_tensors(prompt="a"), ["state", "noise"])])
    assert {tensor.tensor_name for tensor in response.output_tensors} == {"state", "noise"}
    assert response.output_tensors[0].values.dtype == np.float32


class Broken(PostprocessModel):
    """Fails to open after it has opened something that fails to close."""

    error: ClassVar[Exception]

    def open_stage(self, manifest: Any, folder: Path) -> Any:
        self._opened.callback(self.close)
        raise self.error

    def close(self) -> None:
        raise RuntimeError("does not close")


@pytest.mark.parametrize(
    "error", [EngineMismatch("vae_decoder: does not load", command="x"), ValueError("nobody foresaw it")]
)
def test_a_failure_to_open_is_not_masked_by_a_failure_to_close(
    log: Log, build: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broken, "error", error, raising=False)
    with pytest.raises(Exception, match=str(error)) as raised:
        opened(Broken())
    own = isinstance(error, EngineMismatch)
    assert type(raised.value).__name__ == ("TritonModelException" if own else "ValueError")
    assert "does not close" in log.errors()[0]
