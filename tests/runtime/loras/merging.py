"""The network that adds LoRAs to matrices, exported and opened as a build does."""

from __future__ import annotations

from pathlib import Path

from intaglio.contract.architecture import SDXL_ARCHITECTURE
from intaglio.contract.sdxl import LORA_MERGE, network_spec, profiles
from intaglio.contract.tensors import Precision
from intaglio.engines.onnxruntime import OnnxRuntimeBackend
from intaglio.loras.merge import LoraMerge
from intaglio_export.engines.compile import compile_network
from intaglio_export.engines.job import ENGINE_FILES, CompileJob
from intaglio_export.engines.platform import Platform
from intaglio_export.graphs.export import export_network
from intaglio_export.graphs.sdxl import LoraMerge as MergeNetwork

SPEC = network_spec(LORA_MERGE, SDXL_ARCHITECTURE)


PROFILES = profiles(SPEC, SDXL_ARCHITECTURE, sizes=[(64, 64)], batches=[1], guidance=[True], chunks=1)


def compile_merge(folder: Path, platform: Platform, *, precision: Precision) -> Path:
    """The engine file, as `intaglio build` makes it."""
    export_network(
        MergeNetwork(), LORA_MERGE, folder / "model.onnx", architecture=SDXL_ARCHITECTURE, precision=precision
    )
    job = CompileJob(
        onnx=folder / "model.onnx",
        network=SPEC,
        profiles=PROFILES,
        precision=precision,
        timing_cache=folder / "timing.cache",
    )
    compile_network(job, folder, platform=platform)
    return folder / ENGINE_FILES[platform.runtime]


def open_merge(folder: Path, *, precision: Precision, staging_bytes: int = 1 << 30) -> LoraMerge:
    """On ONNX Runtime."""
    path = compile_merge(folder, Platform("onnxruntime", "cpu", "1", on_gpu=False), precision=precision)
    backend = OnnxRuntimeBackend(threads=1)
    return LoraMerge(backend, backend.load(SPEC, path, precision=precision), staging_bytes=staging_bytes)
