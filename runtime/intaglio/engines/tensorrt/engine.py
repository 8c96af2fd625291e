"""One plan: its tensors, its contexts (one for each optimization profile), its refit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intaglio.contract.sdxl import LORA_MERGE
from intaglio.contract.tensors import AxisSizes, NetworkSpec, Precision
from intaglio.engines.interface import Array, DeviceArray, check_bindings, check_tensors
from intaglio.engines.tensorrt.context import TensorRTBound, TensorRTContext
from intaglio.engines.tensorrt.device import Device, cuda_array
from intaglio.engines.tensorrt.library import TensorRT
from intaglio.engines.tensorrt.refit import PlanRefitter
from intaglio.engines.tensorrt.runtime_cache import RuntimeCache, RuntimeCaches, Shapes
from intaglio.errors import IntaglioError, Unavailable

if TYPE_CHECKING:
    import tensorrt as trt  # type: ignore[import-not-found,unused-ignore]

__all__ = ["ContextSettings", "TensorRTEngine", "context_settings"]


@dataclass(slots=True)
class ContextSettings:
    """How the execution contexts of one plan are made, and where the kernels that they compile are kept."""

    configuration: Any
    """The argument of `create_execution_context`."""
    caches: RuntimeCaches
    cache: RuntimeCache | None = None
    """This plan's, with TensorRT-RTX."""
    specializes: bool = True
    """Whether each shape has kernels of its own."""
    compiled: set[Shapes] = field(default_factory=set)
    """Shapes that kernels were compiled for; one entry for all shapes without specialization. An engine that
    is opened again goes on with the set that it had.
    """

    def expect_compilation(self, shapes: Shapes) -> None:
        """The next pass is of these input shapes; it compiles what no pass before it has compiled."""
        compiled_for = shapes if self.specializes else ()
        if self.cache is not None and compiled_for not in self.compiled:
            self.compiled.add(compiled_for)
            self.caches.expect_change(self.cache)

    def keep_compiled(self) -> None:
        """Write what was compiled to files; all passes must be done."""
        self.caches.write()


def context_settings(
    network: str, plan: trt.ICudaEngine, *, library: TensorRT, caches: RuntimeCaches, path: Path
) -> ContextSettings:
    """Contexts without activation memory of their own; with TensorRT-RTX, with the runtime cache at `path`.

    TensorRT-RTX compiles kernels for a shape when it first sees it. By default it does so in the background
    and runs general kernels meanwhile. An image's bits would then depend on when it was made, and a captured
    graph would keep the general kernels for ever. So kernels are compiled before the first pass.
    """
    strategy = library.module.ExecutionContextAllocationStrategy.USER_MANAGED
    if library.name != "tensorrt-rtx":
        return ContextSettings(strategy, caches)
    configuration = plan.create_runtime_config()
    configuration.set_execution_context_allocation_strategy(strategy)
    kinds = library.module.DynamicShapesKernelSpecializationStrategy
    # Requests choose the ranks that the merge sees: compiling kernels for each would delay every swap.
    specializes = network != LORA_MERGE
    configuration.dynamic_shapes_kernel_specialization_strategy = kinds.EAGER if specializes else kinds.NONE
    library_cache = configuration.create_runtime_cache()
    cache = RuntimeCache(library_cache, path)
    configuration.set_runtime_cache(library_cache)
    return ContextSettings(configuration, caches, cache, specializes, caches.compiled(path))


class TensorRTEngine:
    """One plan; a context for each optimization profile, made when it is first bound."""

    def __init__(
        self,
        network: NetworkSpec,
        plan: trt.ICudaEngine,
        *,
        precision: Precision,
        library: TensorRT,
        device: Device,
        settings: ContextSettings,
    ) -> None:
        """Raises EngineMismatch where the plan's tensors are not those of `network`."""
        self.network = network
        self.precision = precision
        self.plan = plan
        self.library = library
        self.device = device
        names = [plan.get_tensor_name(index) for index in range(plan.num_io_tensors)]
        found = {name: (self._dtype(name), self._shape(name)) for name in names}
        check_tensors(network, found, precision=precision, rebuild=library.rebuild)
        self._contexts: dict[int, TensorRTContext] = {}
        self._settings = settings
        self._refitter = PlanRefitter(network.name, plan, library=library, device=device)

    @property
    def activation_bytes(self) -> int:
        return int(self.plan.device_memory_size_v2)

    def bind(self, sizes: AxisSizes, arrays: Mapping[str, DeviceArray]) -> TensorRTBound:
        check_bindings(self, sizes, arrays)
        profile = self._profile(sizes)
        if profile not in self._contexts:
            self._contexts[profile] = self._make_context(profile)
        return self._contexts[profile].bind({name: cuda_array(array) for name, array in arrays.items()})

    def check_refittable(self, names: Iterable[str]) -> None:
        """Raises EngineMismatch where one of the weights `names` cannot be replaced."""
        self._refitter.check(names)

    def refit(self, weights: Mapping[str, Array | DeviceArray]) -> None:
        self._refitter.refit(weights, before_change=self._forget_graphs)

    def joined(self, sizes: Mapping[str, int]) -> Sequence[frozenset[str]]:
        return self._refitter.joined(sizes, precision=self.precision)

    def close(self) -> None:
        """Free the plan's memory, even while somebody still refers to a bound pass."""
        self.device.synchronize()
        self._settings.keep_compiled()
        for context in self._contexts.values():
            context.close()
        self._contexts.clear()
        del self._refitter  # before the plan that it refers to
        del self._settings
        del self.plan

    def _dtype(self, name: str) -> str:
        return self.library.numpy_dtype(self.plan.get_tensor_dtype(name))

    def _shape(self, name: str) -> tuple[int, ...]:
        dims = self.plan.get_tensor_shape(name)
        return tuple(dims[axis] for axis in range(len(dims)))

    def _profile(self, sizes: AxisSizes) -> int:
        """Index of the first optimization profile that admits every input's shape."""
        dynamic = [spec for spec in self.network.inputs if spec.dynamic_axes]
        for profile in range(self.plan.num_optimization_profiles):
            if all(self._admits(profile, spec.name, spec.shape(sizes)) for spec in dynamic):
                return profile
        wanted = ", ".join(f"{axis}={sizes[axis]}" for axis in self.network.axis_names)
        raise self.library.mismatch(f"{self.network.name}: no profile for {wanted}")

    def _admits(self, profile: int, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self.plan.get_tensor_profile_shape(name, profile)
        if len(low) != len(shape):
            return False
        return all(low[axis] <= size <= high[axis] for axis, size in enumerate(shape))

    def _make_context(self, profile: int) -> TensorRTContext:
        execution = self.plan.create_execution_context(self._settings.configuration)
        if execution is None:
            self.device.synchronize()  # where the card failed, this says so
            raise Unavailable(
                f"{self.network.name}: no execution context for profile {profile}; is the card's memory full?"
            )
        # Of the largest profile: `set_device_memory` accepts no less, and the arena is the maximum over all
        # engines anyway.
        arena_bytes = self.activation_bytes
        self.device.reserve(arena_bytes)
        if not execution.set_optimization_profile_async(profile, int(self.device.stream)):
            self.device.synchronize()  # where the card failed, this says so
            raise IntaglioError(f"{self.network.name}: profile {profile} refused")
        self.device.synchronize()
        return TensorRTContext(
            self.network,
            execution,
            arena_bytes=arena_bytes,
            library=self.library,
            device=self.device,
            expect_compilation=self._settings.expect_compilation,
        )

    def _forget_graphs(self) -> None:
        for context in self._contexts.values():
            context.forget_graphs()
