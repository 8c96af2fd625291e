"""A whole roofline: what the device reaches, then what every engine of a build reaches on it."""

# ruff: noqa: PLC0415  (only the library of the build's runtime is imported; torch only once warnings are off)

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import Deployment
from intaglio.engines.interface import Backend
from intaglio.engines.opening import open_backend
from intaglio.errors import ConfigError
from intaglio.serving.build_check import check_build
from intaglio_export.card.measure import Builder, Ceilings, measure_ceilings
from intaglio_export.engines.platform import resolve_platform
from intaglio_export.plan.quiet import quiet_libraries

if TYPE_CHECKING:
    from intaglio_export.roofline.engines import EnginePass

__all__ = ["measure_roofline"]

_OF_A_PROCESSOR: Final = 4
"""Divisor of the small graphs: a processor computes them in seconds then, as a card does whole ones."""


def measure_roofline(
    deployment: Deployment, size: tuple[int, int] | None, *, started: Callable[[str], None]
) -> dict[str, Any]:
    """Ceilings and passes of the build of `deployment` as values that JSON can hold.

    Args:
        size: width and height of the picture; None takes the largest of the deployment.
        started: is told what is measured next.

    Raises:
        EngineMismatch: the deployment is not built, or its build does not run here.
        ConfigError: the build has no such size.
        BuildError: a graph cannot be counted, or a small engine cannot be built.
    """
    manifest = check_build(deployment)
    sizes = manifest.profiles.sizes
    chosen = size or max(sizes, key=lambda one: one[0] * one[1])
    if chosen not in sizes:
        known = ", ".join(f"{width}x{height}" for width, height in sizes)
        raise ConfigError(f"size {chosen[0]}x{chosen[1]} is not in the build; allowed: {known}")
    guidance = True in manifest.profiles.guidance_modes
    backend = open_backend(manifest)
    try:
        with warnings.catch_warnings():
            quiet_libraries()
            started("ceilings")
            ceilings = _ceilings(deployment, manifest, backend)
            found = _passes(deployment, manifest, backend, size=chosen, guidance=guidance, started=started)
    finally:
        backend.close()
    return {
        "build": {
            "key": manifest.key,
            "config": deployment.name,
            "runtime": manifest.runtime,
            "target": manifest.target,
            "precision": manifest.precision,
        },
        "picture": {"width": chosen[0], "height": chosen[1], "guidance": guidance, "images": 1},
        "ceilings": {
            "precision": ceilings.precision,
            "operations_a_second": ceilings.operations,
            "bytes_a_second": ceilings.bandwidth,
        },
        "networks": found,
    }


def _passes(
    deployment: Deployment,
    manifest: BuildManifest,
    backend: Backend,
    *,
    size: tuple[int, int],
    guidance: bool,
    started: Callable[[str], None],
) -> list[dict[str, Any]]:
    from intaglio_export.roofline.engines import Passes

    passes = Passes(deployment, manifest, size=size, guidance=guidance)
    return [_pass_data(one) for one in passes.measure(backend, started=started)]


def _pass_data(one: EnginePass) -> dict[str, Any]:
    return {
        "network": one.network,
        "equal": list(one.equal),
        "sizes": one.sizes,
        "operations": dict(one.work.operations),
        "bytes": one.work.bytes,
        "seconds": one.seconds,
    }


def _ceilings(deployment: Deployment, manifest: BuildManifest, backend: Backend) -> Ceilings:
    builder: Builder
    if manifest.runtime == "onnxruntime":
        from intaglio_export.engines.onnxruntime import OnnxRuntimeBuilder

        threads = manifest.execution.threads or len(os.sched_getaffinity(0))
        return measure_ceilings(
            OnnxRuntimeBuilder(),
            backend,
            precision=manifest.precision,
            threads=threads,
            divisor=_OF_A_PROCESSOR,
            choose=min,
        )
    from intaglio_export.engines.tensorrt import TensorRTBuilder

    here = deployment.model_copy(update={"runtime": manifest.runtime, "target": "auto"})
    builder = TensorRTBuilder(resolve_platform(here), manifest.runtime)
    return measure_ceilings(builder, backend, precision=manifest.precision, choose=min)
