"""Which backend a build's engines were made for; its libraries are imported only here, when a build needs them."""

# ruff: noqa: PLC0415  (a runtime is imported only when a build needs it)

from __future__ import annotations

from typing import TYPE_CHECKING

from intaglio.errors import ConfigError

if TYPE_CHECKING:
    from intaglio.builds.manifest import BuildManifest
from intaglio.engines.interface import Backend

__all__ = ["open_backend"]


def open_backend(manifest: BuildManifest) -> Backend:
    """The backend that `manifest`'s engines were built for; its libraries are imported only now.

    Raises:
        MissingExtra, EngineMismatch: the library or the device is not here.
    """
    match manifest.runtime:
        case "onnxruntime":
            from intaglio.engines.onnxruntime import OnnxRuntimeBackend

            return OnnxRuntimeBackend(threads=manifest.execution.threads, rebuild=manifest.rebuild)
        case "tensorrt-rtx" | "tensorrt":
            from intaglio.tensorrt_engine import TensorRTBackend

            return TensorRTBackend(
                manifest.runtime, cuda_graph=manifest.execution.cuda_graph, rebuild=manifest.rebuild
            )
    raise ConfigError(
        f"unknown runtime {manifest.runtime!r}"
    )  # pragma: no cover - the manifest's type leaves no other
