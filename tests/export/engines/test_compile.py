"""Engines of ONNX Runtime, and graphs that it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from intaglio.contract.tensors import NetworkSpec, TensorSpec
from intaglio.errors import BuildError
from intaglio_export.engines import onnxruntime as runtime_module
from intaglio_export.engines.compile import compile_network
from intaglio_export.engines.job import ENGINE_FILES, CompileJob
from intaglio_export.engines.platform import Platform

PLATFORM = Platform("onnxruntime", "cpu", "1", on_gpu=False)


def job_of(folder: Path, operation: str) -> CompileJob:
    """A graph of one operation: y = operation(x, weight)."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [400]) for name in ("x", "y")]
    weight = onnx.numpy_helper.from_array(np.arange(400, dtype=np.float32), "weight")
    node = helper.make_node(operation, ["x", "weight"], ["y"])
    graph = helper.make_graph([node], "toy", values[:1], values[1:], [weight])
    path = folder / "model.onnx"
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    spec = NetworkSpec("toy", (TensorSpec("x", (400,)),), (TensorSpec("y", (400,)),))
    return CompileJob(path, spec, (), "fp32", folder / "timing.cache")


@pytest.mark.parametrize("beside", [False, True])
def test_the_optimised_graph_computes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, beside: bool
) -> None:
    if beside:
        monkeypatch.setattr(runtime_module, "_INLINE_BYTES", 100)
    job = job_of(tmp_path, "Add")
    out = tmp_path / "out"
    out.mkdir()
    notes: dict[str, Any] = compile_network(job, out, platform=PLATFORM)
    assert notes["session_options"]["graph_optimization_level"] == "extended"
    path = out / ENGINE_FILES["onnxruntime"]
    assert path.with_name("engine.onnx.data").exists() == beside
    x = np.ones(400, np.float32)
    (y,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    np.testing.assert_array_equal(y, x + np.arange(400))


def test_a_graph_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="toy: ONNX Runtime refuses the graph"):
        compile_network(job_of(tmp_path, "NoSuchOperation"), tmp_path, platform=PLATFORM)
