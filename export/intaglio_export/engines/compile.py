"""ONNX graphs to engines of any runtime."""

# ruff: noqa: PLC0415  (a runtime is imported only when engines are made for it)

from __future__ import annotations

from pathlib import Path
from typing import Any

from intaglio_export.engines.job import ENGINE_FILES, CompileJob
from intaglio_export.engines.platform import Platform

__all__ = ["compile_network"]


def compile_network(job: CompileJob, folder: Path, *, platform: Platform) -> dict[str, Any]:
    """Write the engine into `folder` as `ENGINE_FILES[runtime]`; returns notes for its record.

    Raises:
        BuildError: the library refuses the graph, with its own words.
        ConfigError: the platform cannot make this engine here.
    """
    path = folder / ENGINE_FILES[platform.runtime]
    if platform.runtime == "onnxruntime":
        from intaglio_export.engines.onnxruntime import optimise_onnx

        return optimise_onnx(job, path)
    from intaglio_export.engines.tensorrt import TensorRTBuilder

    return TensorRTBuilder(platform, platform.runtime).build(job, path)
