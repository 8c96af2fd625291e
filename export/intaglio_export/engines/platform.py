"""Which runtime and which card engines are made for."""

from __future__ import annotations

from dataclasses import dataclass

from intaglio.contract.config import Deployment, RuntimeName
from intaglio.engines.card import check_gpu, gpu_capability
from intaglio.engines.installed import DISTRIBUTIONS, runtime_version
from intaglio.errors import ConfigError, MissingExtra

__all__ = ["Platform", "resolve_platform"]


@dataclass(frozen=True, slots=True)
class Platform:
    """What engines are made for and with."""

    runtime: RuntimeName
    target: str
    """`cpu` or a compute capability, such as `sm89`."""
    version: str
    """Version of the runtime's library."""
    on_gpu: bool
    """Whether the card `gpu` of this machine is of that target. Engines can be refittable and verified only
    then.
    """
    gpu: int = 0
    """CUDA's index of the card."""


def resolve_platform(deployment: Deployment) -> Platform:
    """The deployment's runtime and target, with `auto` resolved.

    `auto` is TensorRT-RTX where both a card and the package are available, and ONNX Runtime otherwise.

    Raises:
        ConfigError: TensorRT without a card and without a target; no card of the index `execution.gpu`;
            `server` names cards for a CPU, or several instances for a card.
        MissingExtra: the runtime's package is not installed.
    """
    gpu = deployment.execution.gpu
    if deployment.runtime != "onnxruntime" and deployment.target != "cpu":
        check_gpu(gpu)
    present = gpu_capability(gpu)
    runtime = _resolve_runtime(deployment, present)
    try:
        deployment.server.check_instances(on_card=runtime != "onnxruntime")
    except ValueError as error:
        raise ConfigError(f"{deployment.name}: {error}") from error
    version = runtime_version(runtime)
    if version is None:
        extra = "export" if runtime == "onnxruntime" else "tensorrt"
        raise MissingExtra(DISTRIBUTIONS[runtime][0], extra=extra)
    if runtime == "onnxruntime":
        return Platform(runtime, "cpu", version, on_gpu=False)
    target = present if deployment.target == "auto" else deployment.target
    if target is None:
        raise ConfigError(
            f"runtime {runtime}: no NVIDIA card here, so the card must be named: "
            "target (or --target) sm86, sm89 or sm120"
        )
    return Platform(runtime, target, version, on_gpu=present == target, gpu=gpu)


def _resolve_runtime(deployment: Deployment, present: str | None) -> RuntimeName:
    if deployment.runtime != "auto":
        return deployment.runtime
    names_card = deployment.target not in ("auto", "cpu")
    wants_gpu = names_card or (deployment.target == "auto" and present is not None)
    if wants_gpu and runtime_version("tensorrt-rtx") is not None:
        return "tensorrt-rtx"
    if names_card:
        raise MissingExtra("tensorrt_rtx", extra="tensorrt")
    return "onnxruntime"
