"""TensorRT plans, also ahead of time for a card that is not in this machine.

`tensorrt_rtx` and `tensorrt` have one builder API; `TensorRTBuilder` holds what differs. Networks are
strongly typed: their precision is that of the ONNX graph. There is one optimization profile for each (size x
batch x guidance x text chunks). Its sizes are fixed, except for the text encoders.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from intaglio.contract.sdxl import LORA_MERGE
from intaglio.contract.tensors import compute_dtype
from intaglio.engines.onnx_file import initializers
from intaglio.engines.tensorrt.library import Cuda, import_tensorrt, tensorrt_logger
from intaglio.errors import BuildError, ConfigError
from intaglio_export.engines.job import CompileJob
from intaglio_export.engines.platform import Platform
from intaglio_export.weights.swapped_weights import is_swapped

if TYPE_CHECKING:
    import tensorrt as trt  # type: ignore[import-not-found,unused-ignore]

__all__ = ["TensorRTBuilder"]

_STAND_IN: Final = {"sm90": "sm80"}
"""TensorRT-RTX has no Hopper target; a plan for SM80 runs there (measured on an H200)."""


class TensorRTBuilder:
    """The builder of `tensorrt_rtx` or `tensorrt`."""

    def __init__(self, platform: Platform, runtime: Literal["tensorrt-rtx", "tensorrt"]) -> None:
        self.platform = platform
        self.trt: Any = import_tensorrt(runtime)
        self.logger: trt.ILogger = tensorrt_logger(self.trt)

    def build(self, job: CompileJob, path: Path) -> dict[str, Any]:
        """Write the plan of `job` to `path`; returns notes for its record.

        Raises:
            BuildError: the library refuses the graph, with its own words.
            ConfigError: the card is unknown or not here.
        """
        if self.platform.on_gpu:  # the builder belongs to the card that is current
            Cuda()("cudaSetDevice", self.platform.gpu)
        builder: trt.Builder = self.trt.Builder(self.logger)
        network: trt.INetworkDefinition = builder.create_network(
            1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        )
        parser: trt.OnnxParser = self.trt.OnnxParser(network, self.logger)
        if not parser.parse_from_file(str(job.onnx)):
            first = parser.get_error(0).desc() if parser.num_errors else "no reason given"
            raise BuildError(f"{job.network.name}: TensorRT cannot parse the graph: {first}")
        config: trt.IBuilderConfig = builder.create_builder_config()
        # The network that adds LoRAs computes its sums in float32 whatever the precision is.
        if compute_dtype(job.precision) == "float32" or job.network.name == LORA_MERGE:
            config.clear_flag(self.trt.BuilderFlag.TF32)
        self._set_target(config)
        self._add_profiles(builder, config, job)
        refittable = self._mark_refittable(config, network, job) if job.swap != "off" else 0
        cache = self._open_timing_cache(config, job.timing_cache)
        plan: trt.IHostMemory | None = builder.build_serialized_network(network, config)
        if plan is None:
            raise BuildError(
                f"{job.network.name}: TensorRT cannot build the engine; its reason is on standard output"
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
        """Set the card to build for; full TensorRT always builds for the card that is here."""
        target = _STAND_IN.get(self.platform.target, self.platform.target)
        if self.platform.runtime == "tensorrt":
            if not self.platform.on_gpu:
                raise ConfigError(
                    "runtime tensorrt builds only on the card it is for, and "
                    f"{self.platform.target} is not here; use tensorrt-rtx"
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
                    f"{job.network.name}: TensorRT refuses profile {profile.name}; "
                    "its reason is on standard output"
                )

    def _mark_refittable(
        self, config: trt.IBuilderConfig, network: trt.INetworkDefinition, job: CompileJob
    ) -> int:
        """Mark the weights that LoRAs change, and return their number.

        Only these are marked: with all weights, TensorRT cannot fuse normalisations, which costs 30 % of a
        step.
        """
        if not self.platform.on_gpu:
            raise ConfigError(
                "refittable engines need the card they are for; build on the machine that has it"
            )
        config.set_flag(self.trt.BuilderFlag.REFIT_INDIVIDUAL)
        shapes = {name: shape for name, (_, shape) in initializers(job.onnx).items()}
        names = [name for name, shape in shapes.items() if is_swapped(name, len(shape), job.swap)]
        if not names:
            raise BuildError(f"{job.network.name}: has none of the weights that LoRAs change")
        refused = [name for name in names if not network.mark_weights_refittable(name)]
        if refused:
            raise BuildError(f"{job.network.name}: TensorRT cannot mark {refused[0]} refittable")
        return len(names)

    def _open_timing_cache(self, config: trt.IBuilderConfig, path: Path) -> trt.ITimingCache | None:
        # WAR: TensorRT-RTX 1.6 times kernels when a plan is first run, not here: its cache stays a header of
        # 172 bytes.
        if self.platform.runtime == "tensorrt-rtx":
            return None
        cache: trt.ITimingCache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
        config.set_timing_cache(cache, False)
        return cache
