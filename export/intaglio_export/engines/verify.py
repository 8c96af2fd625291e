"""Compare every engine with PyTorch on fixed inputs, through the same backend that serves it."""

# ruff: noqa: PLC0415  (a runtime's backend is imported only when its engines are verified)

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from intaglio.contract.tensors import NetworkSpec, Precision, Profile
from intaglio.engines.host_call import HostCall
from intaglio.engines.interface import Array, Backend
from intaglio.errors import BuildError
from intaglio_export.engines.platform import Platform
from intaglio_export.graphs.examples import example_inputs
from intaglio_export.graphs.sdxl import wrap_network
from intaglio_export.weights.latents import SDXL_LATENTS, LatentStatistics

__all__ = [
    "Check",
    "checked_profiles",
    "expected_outputs",
    "open_verification_backend",
    "relative_error",
    "verify_engine",
]


@dataclass(frozen=True, slots=True)
class Check:
    """One engine and the network it must agree with."""

    network: NetworkSpec
    engine: Path
    precision: Precision
    profiles: tuple[Profile, ...]
    tolerance: float
    latents: LatentStatistics = SDXL_LATENTS
    """Of the deployment's VAE: they decide the range of a decoder's input."""


def relative_error(found: Array, expected: Array) -> float:
    """Norm of the difference over the norm of `expected`; infinite where a value of either is not finite."""
    exact = expected.astype(np.float64)
    difference = np.linalg.norm(found.astype(np.float64) - exact)
    error = float(difference / max(float(np.linalg.norm(exact)), 1e-12))
    return error if np.isfinite(error) else float("inf")


def checked_profiles(profiles: tuple[Profile, ...]) -> tuple[Profile, ...]:
    """The first profile of every number of images and rows, and the last profile.

    Together they have each guidance mode, each batch and the longest prompt.
    """
    first: dict[tuple[int, ...], Profile] = {}
    for profile in profiles:
        batch = tuple(profile.axes[name].optimum for name in ("B", "N") if name in profile.axes)
        first.setdefault(batch, profile)
    by_name = {profile.name: profile for profile in (*first.values(), profiles[-1])}
    return tuple(by_name.values())


@contextlib.contextmanager
def open_verification_backend(platform: Platform, *, threads: int) -> Iterator[Backend]:
    """The backend that serves `platform`'s engines."""
    backend: Backend
    if platform.runtime == "onnxruntime":
        from intaglio.engines.onnxruntime import OnnxRuntimeBackend

        backend = OnnxRuntimeBackend(threads=threads)
    else:
        from intaglio.engines.tensorrt.backend import TensorRTBackend

        backend = TensorRTBackend(platform.runtime, cuda_graph=False, rebuild="intaglio build")
    try:
        yield backend
    finally:
        backend.close()


def _sizes(profile: Profile) -> dict[str, int]:
    return {name: axis.optimum for name, axis in profile.axes.items()}


def _inputs(check: Check, profile: Profile) -> dict[str, Tensor]:
    """Fixed inputs in float32, from which the network's own are cast."""
    sizes = _sizes(profile)
    return example_inputs(check.network, sizes, precision="fp32", latents=check.latents, seed=1)


def expected_outputs(check: Check, reference: nn.Module) -> dict[str, dict[str, Array]]:
    """PyTorch's outputs for the fixed inputs, by profile and tensor.

    `reference` is the network itself. On the CPU it runs in float32. On a card it runs in the precision that
    it has, because float32 would need twice the memory. The engine is not open yet, so a card need not hold
    both.

    Raises:
        BuildError: a value is not finite: the network itself overflows in this precision.
    """
    if next(reference.parameters()).device.type == "cpu":
        reference = reference.float()
    wrapper = wrap_network(check.network.name, reference)
    weight = next(wrapper.parameters())
    found: dict[str, dict[str, Array]] = {}
    with torch.no_grad():
        for profile in checked_profiles(check.profiles):
            inputs = _inputs(check, profile)
            given = [
                _placed(inputs[spec.name], weight, cast=spec.dtype == "compute")
                for spec in check.network.inputs
            ]
            found[profile.name] = _named_outputs(wrapper(*given), check.network)
    for profile_name, outputs in found.items():
        for output, values in outputs.items():
            if not np.isfinite(values).all():
                place = f"{output} at {profile_name}"
                raise BuildError(f"{check.network.name}: PyTorch's own {place} is not finite: {_cure(check)}")
    return found


def _placed(values: Tensor, weight: Tensor, *, cast: bool) -> Tensor:
    """`values` on the device of `weight`, and with `cast` in its dtype."""
    return values.to(weight.device, weight.dtype) if cast else values.to(weight.device)


def _cure(check: Check) -> str:
    if check.precision == "fp16" and check.network.name.startswith("vae"):
        return "this VAE overflows in fp16; use one that does not (vae: {hub: madebyollin/sdxl-vae-fp16-fix})"
    return "the weights are damaged or made for another precision"


def verify_engine(
    check: Check, expected: Mapping[str, Mapping[str, Array]], *, backend: Backend
) -> tuple[dict[str, float], int | None]:
    """Largest relative error by profile, and the bytes of the engine's activation memory.

    `expected` is the result of `expected_outputs`.

    Raises:
        BuildError: an error is above the tolerance; such an engine must not be served.
    """
    engine = backend.load(check.network, check.engine, precision=check.precision)
    errors: dict[str, float] = {}
    activation_bytes = engine.activation_bytes
    try:
        call = HostCall(backend, engine)
        for profile in checked_profiles(check.profiles):
            inputs = {name: values.numpy() for name, values in _inputs(check, profile).items()}
            found = call(_sizes(profile), **inputs)
            right = expected[profile.name]
            errors[profile.name] = max(
                relative_error(found[spec.name], right[spec.name]) for spec in check.network.outputs
            )
    finally:
        engine.close()
    worst = max(errors, key=lambda name: errors[name])
    if errors[worst] > check.tolerance:
        raise BuildError(
            f"{check.network.name}: the engine disagrees with PyTorch: relative error {errors[worst]:.2g} "
            f"at {worst}, tolerance {check.tolerance:g}; it is not put into the repository"
        )
    return errors, activation_bytes


def _named_outputs(outputs: Any, network: NetworkSpec) -> dict[str, Array]:
    values = outputs if isinstance(outputs, tuple) else (outputs,)
    return {spec.name: value.cpu().numpy() for spec, value in zip(network.outputs, values, strict=True)}
