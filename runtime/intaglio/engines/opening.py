"""Which backend a build's engines were made for."""

# ruff: noqa: PLC0415  (a library is imported only when a build needs it)

from __future__ import annotations

from typing import TYPE_CHECKING

from intaglio.engines.card import check_gpu, gpu_capability
from intaglio.engines.installed import runtime_version
from intaglio.engines.interface import Backend
from intaglio.errors import ConfigError, EngineMismatch

if TYPE_CHECKING:
    from intaglio.builds.manifest import BuildManifest

__all__ = ["open_backend"]


def open_backend(manifest: BuildManifest) -> Backend:
    """The backend that `manifest`'s engines were built for; only its library is imported.

    Raises:
        MissingExtra: the library is not installed.
        EngineMismatch: it does not work on this machine.
        ConfigError: the machine has no card of the index `execution.gpu`.
    """
    match manifest.runtime:
        case "onnxruntime":
            from intaglio.engines.onnxruntime import OnnxRuntimeBackend

            return OnnxRuntimeBackend(threads=manifest.execution.threads, rebuild=manifest.rebuild)
        case "tensorrt-rtx" | "tensorrt":
            from intaglio.engines.tensorrt.backend import TensorRTBackend
            from intaglio.engines.tensorrt.library import turn_tf32_off

            if manifest.precision == "fp32":
                turn_tf32_off()
            _check_card(manifest)
            _check_library(manifest)
            execution = manifest.execution
            return TensorRTBackend(
                manifest.runtime,
                gpu=execution.gpu,
                cuda_graph=execution.cuda_graph,
                rebuild=manifest.rebuild,
            )
        case unknown:  # pragma: no cover - the manifest's type leaves no other
            raise ConfigError(
                f"runtime {unknown!r} is unknown; it must be onnxruntime, tensorrt-rtx or tensorrt"
            )


def _check_card(manifest: BuildManifest) -> None:
    """TensorRT-RTX also opens plans for other cards, some of which then compute slowly or fail."""
    check_gpu(manifest.execution.gpu)
    present = gpu_capability(manifest.execution.gpu)
    if present not in {None, manifest.target}:
        raise EngineMismatch(
            f"the build is for a card of {manifest.target}, and this machine's is {present}",
            command=manifest.rebuild,
        )


def _check_library(manifest: BuildManifest) -> None:
    """TensorRT promises nothing of plans that another release made."""
    built = manifest.versions.get(manifest.runtime)
    found = runtime_version(manifest.runtime)
    if built is not None and found is not None and built != found:
        raise EngineMismatch(
            f"the build was made with {manifest.runtime} {built}, and {found} is installed",
            command=manifest.rebuild,
        )
