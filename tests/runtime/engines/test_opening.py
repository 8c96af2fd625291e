"""A build's runtime chooses the backend, and only its library is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from intaglio.engines import opening
from intaglio.engines.onnxruntime import OnnxRuntimeBackend
from intaglio.engines.opening import open_backend
from intaglio.errors import EngineMismatch


def test_onnxruntime_has_the_builds_threads_and_cure(tiny: Any) -> None:
    execution = tiny.manifest.execution.model_copy(update={"threads": 3})
    backend = open_backend(tiny.manifest.model_copy(update={"execution": execution}))
    assert isinstance(backend, OnnxRuntimeBackend)
    assert (backend.name, backend.threads) == ("onnxruntime", 3)
    assert backend.rebuild == "intaglio build configs/tiny.yaml"


@pytest.mark.parametrize("runtime", ["tensorrt-rtx", "tensorrt"])
def test_both_tensorrt_libraries_have_one_backend(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(
        "intaglio.engines.tensorrt.backend.TensorRTBackend",
        lambda name, **options: opened.append((name, options)),
    )
    execution = tiny.manifest.execution.model_copy(update={"cuda_graph": True, "gpu": 2})
    open_backend(tiny.manifest.model_copy(update={"runtime": runtime, "execution": execution}))
    assert opened == [
        (runtime, {"gpu": 2, "cuda_graph": True, "rebuild": "intaglio build configs/tiny.yaml"})
    ]


def test_a_build_for_another_card_is_refused(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "gpu_capability", lambda gpu: "sm89")
    monkeypatch.setattr("intaglio.engines.tensorrt.backend.TensorRTBackend", lambda name, **_: name)
    build = tiny.manifest.model_copy(update={"runtime": "tensorrt-rtx", "target": "sm89"})
    assert open_backend(build) == "tensorrt-rtx"
    with pytest.raises(EngineMismatch, match="for a card of sm120, and this machine's is sm89; rebuild with"):
        open_backend(build.model_copy(update={"target": "sm120"}))


def test_a_build_of_another_version_of_the_library_is_refused(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "gpu_capability", lambda gpu: tiny.manifest.target)
    monkeypatch.setattr(opening, "runtime_version", lambda runtime: "1.7.1.116")
    monkeypatch.setattr("intaglio.engines.tensorrt.backend.TensorRTBackend", lambda name, **_: name)
    build = tiny.manifest.model_copy(
        update={"runtime": "tensorrt-rtx", "versions": {"tensorrt-rtx": "1.7.1.116"}}
    )
    assert open_backend(build) == "tensorrt-rtx"
    older = build.model_copy(update={"versions": {"tensorrt-rtx": "1.6.1.120"}})
    with pytest.raises(EngineMismatch, match=r"tensorrt-rtx 1.6.1.120, and 1.7.1.116 is installed; rebuild"):
        open_backend(older)


@pytest.mark.parametrize(("precision", "found"), [("fp32", "0"), ("fp16", None)])
def test_fp32_is_served_without_tf32(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, precision: str, found: str | None
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    monkeypatch.setattr("intaglio.engines.tensorrt.backend.TensorRTBackend", lambda name, **_: name)
    open_backend(tiny.manifest.model_copy(update={"runtime": "tensorrt-rtx", "precision": precision}))
    assert os.environ.get("NVIDIA_TF32_OVERRIDE") == found


def test_no_library_is_imported_before_a_build_needs_it() -> None:
    code = (
        f"import sys, {opening.__name__}\n"
        "found = [name for name in sys.modules if name.startswith(('onnxruntime', 'tensorrt', 'cuda'))]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
