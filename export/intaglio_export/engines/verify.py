"""Every engine against PyTorch on fixed inputs, through the same backend that serves it."""

# ruff: noqa: PLC0415  (torch is imported only when an engine is verified)

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from intaglio.contract.tensors import NetworkSpec, Precision, Profile
from intaglio.engines.host_call import HostCall
from intaglio.engines.interface import Array, Backend
from intaglio.errors import BuildError
from intaglio_export.engines.compile import Platform

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "NOT_VERIFIED",
    "Check",
    "checked_profiles",
    "expected_outputs",
    "open_verification_backend",
    "relative_error",
    "verify_engine",
]

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
    """Norm of the difference over the norm of `expected`; infinite when either has a value that is not
    finite.
    """
    difference = np.linalg.norm(found.astype(np.float64) - expected.astype(np.float64))
    error = float(difference / max(float(np.linalg.norm(expected.astype(np.float64))), 1e-12))
    return error if np.isfinite(error) else float("inf")


def checked_profiles(profiles: tuple[Profile, ...]) -> tuple[Profile, ...]:
    """The first profile of every batch row count, and the last of all: each guidance mode, each batch, the
    longest prompt.
    """
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
        from intaglio.engines.onnxruntime import OnnxRuntimeBackend

        backend = OnnxRuntimeBackend(threads=threads)
    else:
        from intaglio.engines.tensorrt.backend import TensorRTBackend

        backend = TensorRTBackend(platform.runtime, cuda_graph=False, rebuild="intaglio build")
    try:
        yield backend
    finally:
        backend.close()


def _inputs(check: Check, profile: Profile) -> dict[str, Any]:
    """Fixed inputs in float32; what the network is given is cast from them."""
    from intaglio_export.graphs.sdxl import example_inputs

    sizes = {name: axis.optimum for name, axis in profile.axes.items()}
    return example_inputs(check.network, sizes, precision="fp32", seed=1)


def expected_outputs(check: Check, reference: nn.Module) -> dict[str, dict[str, Array]]:
    """What PyTorch makes of the fixed inputs, by profile.

    `reference` is the network itself. On the CPU it is run in float32; on a card in the precision it has,
    since float32 would take twice the memory beside everything else. The engine is not opened yet: a card
    need not hold both.

    Raises:
        BuildError: a value that is not finite: the network itself overflows in this precision.
    """
    import torch

    from intaglio_export.graphs.sdxl import wrap_network

    on_card = next(reference.parameters()).device.type != "cpu"
    wrapper = wrap_network(check.network.name, reference if on_card else reference.float())
    device, dtype = next(wrapper.parameters()).device, next(wrapper.parameters()).dtype
    found: dict[str, dict[str, Array]] = {}
    with torch.no_grad():
        for profile in checked_profiles(check.profiles):
            inputs = _inputs(check, profile)
            given = [
                inputs[spec.name].to(device, dtype if spec.dtype == "compute" else None)
                for spec in check.network.inputs
            ]
            found[profile.name] = _named_outputs(wrapper(*given), check.network)
    for name, outputs in found.items():
        if overflowed := [output for output, values in outputs.items() if not np.isfinite(values).all()]:
            raise BuildError(
                f"{check.network.name}: PyTorch's own {overflowed[0]} at {name} is not finite: {_cure(check)}"
            )
    return found


def _cure(check: Check) -> str:
    if check.precision == "fp16" and check.network.name.startswith("vae"):
        return (
            "this VAE overflows in fp16; take one that does not (vae: {hub: madebyollin/sdxl-vae-fp16-fix})"
        )
    return "weights that are damaged, or made for another precision"


def verify_engine(
    check: Check, expected: Mapping[str, Mapping[str, Array]], *, backend: Backend
) -> tuple[dict[str, float], int | None]:
    """Largest relative error by profile, and the engine's activation memory; `expected` is what
    `expected_outputs` gave.

    Raises:
        BuildError: an error above the tolerance; such an engine must not be served.
    """
    engine = backend.load(check.network, check.engine, precision=check.precision)
    errors: dict[str, float] = {}
    activation_bytes = engine.activation_bytes
    try:
        call = HostCall(backend, engine)
        for profile in checked_profiles(check.profiles):
            sizes = {name: axis.optimum for name, axis in profile.axes.items()}
            found = call(sizes, **{name: value.numpy() for name, value in _inputs(check, profile).items()})
            errors[profile.name] = max(
                relative_error(found[spec.name], expected[profile.name][spec.name])
                for spec in check.network.outputs
            )
    finally:
        engine.close()
    worst = max(errors, key=lambda name: errors[name])
    if errors[worst] > check.tolerance:
        raise BuildError(
            f"{check.network.name}: the engine disagrees with PyTorch: relative error {errors[worst]:.2g} at {worst}, "
            f"tolerance {check.tolerance:g}; it is not put into the repository"
        )
    return errors, activation_bytes


def _named_outputs(outputs: Any, network: NetworkSpec) -> dict[str, Array]:
    if isinstance(outputs, dict):
        return {spec.name: outputs[spec.name].cpu().numpy() for spec in network.outputs}
    values = outputs if isinstance(outputs, tuple) else (outputs,)
    return {spec.name: value.cpu().numpy() for spec, value in zip(network.outputs, values, strict=True)}
