"""Every engine against PyTorch on fixed inputs, through the same backend that serves it."""

# ruff: noqa: PLC0415  (torch is imported only when an engine is verified)

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from intaglio.engine import Array, Backend, HostCall
from intaglio.errors import BuildError
from intaglio.tensors import NetworkSpec, Precision, Profile
from intaglio_export.compile import Platform

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NOT_VERIFIED", "Check", "checked_profiles", "open_verification_backend", "relative_error", "verify_engine"]

NOT_VERIFIED = "not verified: no GPU of the target here"


@dataclass(frozen=True, slots=True)
class Check:
    """One engine and the network it must agree with."""

    network: NetworkSpec
    engine: Path
    precision: Precision
    profiles: tuple[Profile, ...]
    tolerance: float


def relative_error(found: Array, expected: Array) -> float:
    """Norm of the difference over the norm of `expected`; infinite when either has a value that is not finite."""
    difference = np.linalg.norm(found.astype(np.float64) - expected.astype(np.float64))
    error = float(difference / max(float(np.linalg.norm(expected.astype(np.float64))), 1e-12))
    return error if np.isfinite(error) else float("inf")


def checked_profiles(profiles: tuple[Profile, ...]) -> tuple[Profile, ...]:
    """The first profile of every batch row count, and the last of all: each guidance mode, each batch, the longest prompt."""
    seen: dict[Any, Profile] = {}
    for profile in profiles:
        axes = profile.axes
        seen.setdefault(tuple(axes[name].optimum for name in ("B", "N") if name in axes), profile)
    return tuple({profile.name: profile for profile in (*seen.values(), profiles[-1])}.values())


@contextlib.contextmanager
def open_verification_backend(platform: Platform, *, threads: int) -> Iterator[Backend]:
    """The backend that serves `platform`'s engines."""
    backend: Backend
    if platform.runtime == "onnxruntime":
        from intaglio.onnxruntime_engine import OnnxRuntimeBackend

        backend = OnnxRuntimeBackend(threads=threads)
    else:
        from intaglio.tensorrt_engine import TensorRTBackend

        backend = TensorRTBackend(platform.runtime, cuda_graph=False, rebuild="intaglio build")
    try:
        yield backend
    finally:
        backend.close()


def verify_engine(check: Check, reference: nn.Module, *, backend: Backend) -> dict[str, float]:
    """Largest relative error by profile. `reference` is the network itself, in float32.

    Raises:
        BuildError: an error above the tolerance; such an engine must not be served.
    """
    from intaglio_export.graphs import example_inputs, wrap_network

    wrapper = wrap_network(check.network.name, reference)
    engine = backend.load(check.network, check.engine, precision=check.precision)
    errors: dict[str, float] = {}
    try:
        call = HostCall(backend, engine)
        for profile in checked_profiles(check.profiles):
            sizes = {name: axis.optimum for name, axis in profile.axes.items()}
            inputs = example_inputs(check.network, sizes, precision="fp32", seed=1)
            found = call(sizes, **{name: value.numpy() for name, value in inputs.items()})
            expected = _reference_outputs(wrapper, check.network, inputs)
            errors[profile.name] = max(relative_error(found[spec.name], expected[spec.name]) for spec in check.network.outputs)
    finally:
        engine.close()
    worst = max(errors, key=lambda name: errors[name])
    if errors[worst] > check.tolerance:
        raise BuildError(
            f"{check.network.name}: the engine disagrees with PyTorch: relative error {errors[worst]:.2g} at {worst}, "
            f"tolerance {check.tolerance:g}; it is not put into the repository"
        )
    return errors


def _reference_outputs(wrapper: nn.Module, network: NetworkSpec, inputs: Mapping[str, Any]) -> dict[str, Array]:
    import torch

    with torch.no_grad():
        outputs = wrapper(*(inputs[spec.name] for spec in network.inputs))
    if isinstance(outputs, dict):
        return {spec.name: outputs[spec.name].numpy() for spec in network.outputs}
    values = outputs if isinstance(outputs, tuple) else (outputs,)
    return {spec.name: value.numpy() for spec, value in zip(network.outputs, values, strict=True)}
