"""ONNX graphs to engines: ONNX Runtime's optimised graph, or a TensorRT plan, ahead of time for a card that
need not be here.

`tensorrt_rtx` and `tensorrt` have one builder API; what differs is in `_TensorRT`. Networks are strongly
typed: precision is the ONNX graph's. One optimization profile a (size x batch x guidance x text chunks),
static but for the text encoders.
"""

# ruff: noqa: PLC0415  (each runtime is imported only when engines are made for it)

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from intaglio.contract.config import Deployment, Swap
from intaglio.contract.sdxl import LORA_MERGE
from intaglio.contract.tensors import NetworkSpec, Precision, Profile
from intaglio.engines.onnx_file import initializers
from intaglio.engines.tensorrt.library import import_tensorrt, tensorrt_logger
from intaglio.errors import BuildError, ConfigError, MissingExtra

if TYPE_CHECKING:
    import tensorrt as trt  # type: ignore[import-not-found,unused-ignore]

__all__ = [
    "ENGINE_FILES",
    "CompileJob",
    "Platform",
    "compile_network",
    "gpu_capability",
    "is_swapped",
    "resolve_platform",
]

RuntimeName = Literal["onnxruntime", "tensorrt-rtx", "tensorrt"]
ENGINE_FILES: Final = {"onnxruntime": "engine.onnx", "tensorrt-rtx": "engine.plan", "tensorrt": "engine.plan"}
_DISTRIBUTIONS: Final = {
    "onnxruntime": ("onnxruntime",),
    "tensorrt-rtx": ("tensorrt-rtx-cu12", "tensorrt-rtx"),
    "tensorrt": ("tensorrt",),
}
_STAND_IN: Final = {"sm90": "sm80"}
"""TensorRT-RTX has no Hopper target; the plan for SM80 runs there (measured on an H200)."""
_INLINE_BYTES: Final = 2**31 - 2**20
"""Largest ONNX file before its weights go to a file of their own: protobuf stops at 2 GiB."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What engines are made for and with."""

    runtime: RuntimeName
    target: str
    """`cpu` or a compute capability, `sm89`."""
    version: str
    """Of the runtime's library."""
    on_gpu: bool
    """Whether a card of that target is in this machine: only then can engines be refittable and be verified.
    """


@dataclass(frozen=True, slots=True)
class CompileJob:
    """One network to compile."""

    onnx: Path
    network: NetworkSpec
    profiles: tuple[Profile, ...]
    precision: Precision
    timing_cache: Path
    """Kernel timings of earlier builds, shared between networks; read and written where the library keeps
    any.
    """
    swap: Swap = "off"
    """Which weights may be replaced in a running engine (`transformer` costs 9 % a step on the card measured,
    `all` 30 %).
    """


def gpu_capability() -> str | None:
    """`sm89` of the first NVIDIA card, asked of the driver; None without one."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count, device, major, minor = (ctypes.c_int() for _ in range(4))
    if (
        cuda.cuInit(0)
        or cuda.cuDeviceGetCount(ctypes.byref(count))
        or not count.value
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
    ):
        return None
    # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h
    if cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device) or cuda.cuDeviceGetAttribute(
        ctypes.byref(minor), 76, device
    ):
        return None
    return f"sm{major.value}{minor.value}"


def resolve_platform(deployment: Deployment) -> Platform:
    """Runtime and target with `auto` filled in: TensorRT-RTX where a card and the package are, else ONNX
    Runtime.

    Raises:
        ConfigError: TensorRT without a card and without a target.
        MissingExtra: the runtime's package is not installed.
    """
    present = gpu_capability()
    runtime: RuntimeName
    if deployment.runtime == "auto":
        wants_gpu = deployment.target != "cpu" and (present is not None or deployment.target != "auto")
        runtime = "tensorrt-rtx" if wants_gpu and _version("tensorrt-rtx") else "onnxruntime"
        if runtime == "onnxruntime" and deployment.target not in ("auto", "cpu"):
            raise MissingExtra("tensorrt_rtx", extra="tensorrt")
    else:
        runtime = deployment.runtime
    version = _version(runtime)
    if version is None:
        raise MissingExtra(
            _DISTRIBUTIONS[runtime][0], extra="export" if runtime == "onnxruntime" else "tensorrt"
        )
    if runtime == "onnxruntime":
        return Platform(runtime, "cpu", version, on_gpu=False)
    target = present if deployment.target == "auto" else deployment.target
    if target is None:
        raise ConfigError(
            f"runtime {runtime}: no NVIDIA card here, so the card must be named: target (or --target) sm86, sm89 or sm120"
        )
    return Platform(runtime, target, version, on_gpu=present == target)


def _version(runtime: str) -> str | None:
    for name in _DISTRIBUTIONS[runtime]:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def compile_network(job: CompileJob, folder: Path, *, platform: Platform) -> dict[str, Any]:
    """Write the engine into `folder` as `ENGINE_FILES[runtime]`; returns what is worth keeping in its record.

    Raises:
        BuildError: the library refuses the graph, with its own words.
    """
    path = folder / ENGINE_FILES[platform.runtime]
    if platform.runtime == "onnxruntime":
        return _optimise_onnx(job, path)
    return _TensorRT(platform, platform.runtime).build(job, path)


def _optimise_onnx(job: CompileJob, path: Path) -> dict[str, Any]:
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    # Not ALL: its memory layouts are those of this CPU, and the file may serve on another. They are chosen
    # when it is opened.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    entries: dict[str, str] = {}
    if sum(item.stat().st_size for item in job.onnx.parent.glob(f"{job.onnx.name}*")) > _INLINE_BYTES:
        entries["session.optimized_model_external_initializers_file_name"] = f"{path.name}.data"
        entries["session.optimized_model_external_initializers_min_size_in_bytes"] = "1024"
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    try:
        onnxruntime.InferenceSession(job.onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise BuildError(f"{job.network.name}: ONNX Runtime refuses the graph: {error}") from error
    return {"session_options": {"graph_optimization_level": "extended", **entries}}


class _TensorRT:
    """The builder of `tensorrt_rtx` or `tensorrt`."""

    def __init__(self, platform: Platform, runtime: Literal["tensorrt-rtx", "tensorrt"]) -> None:
        self.platform = platform
        self.trt: Any = import_tensorrt(runtime)
        self.logger: trt.ILogger = tensorrt_logger(self.trt)

    def build(self, job: CompileJob, path: Path) -> dict[str, Any]:
        builder: trt.Builder = self.trt.Builder(self.logger)
        network: trt.INetworkDefinition = builder.create_network(
            1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        )
        parser: trt.OnnxParser = self.trt.OnnxParser(network, self.logger)
        if not parser.parse_from_file(str(job.onnx)):
            first = parser.get_error(0).desc() if parser.num_errors else "no reason given"
            raise BuildError(f"{job.network.name}: TensorRT cannot parse the graph: {first}")
        config: trt.IBuilderConfig = builder.create_builder_config()
        if job.precision == "fp32" or job.network.name == LORA_MERGE:  # its sums are float32 in any network
            config.clear_flag(self.trt.BuilderFlag.TF32)
        self._set_target(config)
        self._add_profiles(builder, config, job)
        refittable = self._mark_refittable(config, network, job) if job.swap != "off" else 0
        cache = self._open_timing_cache(config, job.timing_cache)
        plan: trt.IHostMemory | None = builder.build_serialized_network(network, config)
        if plan is None:
            raise BuildError(
                f"{job.network.name}: TensorRT could not build the engine; it says why on standard output"
            )
        path.write_bytes(memoryview(plan))  # type: ignore[arg-type,unused-ignore]
        if cache is not None:
            job.timing_cache.parent.mkdir(parents=True, exist_ok=True)
            job.timing_cache.write_bytes(memoryview(cache.serialize()))
        return {
            "profiles": [profile.name for profile in job.profiles],
            "plan_bytes": path.stat().st_size,
            "refittable": refittable,
        }

    def _set_target(self, config: trt.IBuilderConfig) -> None:
        """The card to build for; full TensorRT builds for the card that is here."""
        target = _STAND_IN.get(self.platform.target, self.platform.target)
        if self.platform.runtime == "tensorrt":
            if not self.platform.on_gpu:
                raise ConfigError(
                    f"runtime tensorrt builds only on the card it is for; {self.platform.target} is not here (use tensorrt-rtx)"
                )
            return
        known: dict[str, Any] = dict(self.trt.ComputeCapability.__members__)
        if target.upper() not in known:
            targets = ", ".join(name.lower() for name in known if name.startswith("SM"))
            raise ConfigError(f"target {target}: TensorRT-RTX {self.platform.version} builds for {targets}")
        config.num_compute_capabilities = 1  # type: ignore[attr-defined,unused-ignore]
        config.set_compute_capability(known[target.upper()], 0)  # type: ignore[attr-defined,unused-ignore]

    def _add_profiles(self, builder: trt.Builder, config: trt.IBuilderConfig, job: CompileJob) -> None:
        for profile in job.profiles:
            optimization: trt.IOptimizationProfile = builder.create_optimization_profile()
            for spec in job.network.inputs:
                if spec.dynamic_axes:
                    optimization.set_shape(spec.name, *profile.shapes(spec))
            if config.add_optimization_profile(optimization) < 0:
                raise BuildError(
                    f"{job.network.name}: TensorRT refuses profile {profile.name}; it says why on standard output"
                )

    def _mark_refittable(
        self, config: trt.IBuilderConfig, network: trt.INetworkDefinition, job: CompileJob
    ) -> int:
        """Only the matrices that LoRAs change: marking all weights costs the fused normalisations, 30 % of a
        step.
        """
        if not self.platform.on_gpu:
            raise ConfigError(
                "refittable engines need the card they are for; build on the machine that has it"
            )
        config.set_flag(self.trt.BuilderFlag.REFIT_INDIVIDUAL)
        names = [
            name
            for name, (_, shape) in initializers(job.onnx).items()
            if is_swapped(name, len(shape), job.swap)
        ]
        refused = [name for name in names if not network.mark_weights_refittable(name)]
        if refused or not names:
            raise BuildError(
                f"{job.network.name}: TensorRT cannot mark {refused[0] if refused else 'any weight'} refittable"
            )
        return len(names)

    def _open_timing_cache(self, config: trt.IBuilderConfig, path: Path) -> trt.ITimingCache | None:
        # WAR: TensorRT-RTX 1.6 times kernels when a plan is first run, not here: its cache stays at a header
        # of 172 bytes.
        if self.platform.runtime == "tensorrt-rtx":
            return None
        cache: trt.ITimingCache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
        config.set_timing_cache(cache, False)
        return cache


def is_swapped(name: str, dimensions: int, swap: Swap) -> bool:
    """Whether `swap` covers an initializer: `<wrapper>.<module>.weight`, with `.T` behind a matrix that was
    transposed.

    `transformer` covers the matrices of the UNet's attention blocks (their projections too) and of the text
    encoders.
    """
    wrapper, _, rest = name.removesuffix(".T").partition(".")
    if swap == "off" or not rest.endswith(".weight") or "embeddings." in rest:
        return False
    if wrapper == "network":  # of a text encoder
        return dimensions == 2
    return wrapper == "unet" and (
        dimensions == 2 and ".attentions." in rest if swap == "transformer" else dimensions in (2, 4)
    )
