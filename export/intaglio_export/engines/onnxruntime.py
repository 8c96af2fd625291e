"""ONNX Runtime's engine: the graph as ONNX Runtime optimises it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from intaglio.errors import BuildError
from intaglio.onnx_runtime import onnx_runtime
from intaglio_export.engines.job import CompileJob

__all__ = ["OnnxRuntimeBuilder", "optimise_onnx"]

_INLINE_BYTES: Final = 2**31 - 2**20
"""Largest ONNX file before its weights go to a file of their own: protobuf's limit is 2 GiB."""


class OnnxRuntimeBuilder:
    """`optimise_onnx`, in the form of TensorRT's builder."""

    def build(self, job: CompileJob, path: Path) -> dict[str, Any]:
        """Write the optimised graph to `path`."""
        return optimise_onnx(job, path)


def optimise_onnx(job: CompileJob, path: Path) -> dict[str, Any]:
    """Write the optimised graph to `path`; returns the session's options for the record.

    Raises:
        BuildError: ONNX Runtime refuses the graph.
    """
    onnxruntime = onnx_runtime(extra="export")
    options = onnxruntime.SessionOptions()
    # Not ALL, whose memory layouts are those of this CPU: the file may serve on another one. ONNX Runtime
    # chooses layouts when it opens the file.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    entries = _external_weights(job.onnx, path)
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    try:
        onnxruntime.InferenceSession(job.onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise BuildError(f"{job.network.name}: ONNX Runtime refuses the graph: {error}") from error
    return {"session_options": {"graph_optimization_level": "extended", **entries}}


def _external_weights(onnx: Path, path: Path) -> dict[str, str]:
    """Session options that keep the weights of a large graph in a file beside `path`."""
    if sum(item.stat().st_size for item in onnx.parent.glob(f"{onnx.name}*")) <= _INLINE_BYTES:
        return {}
    return {
        "session.optimized_model_external_initializers_file_name": f"{path.name}.data",
        "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
    }
