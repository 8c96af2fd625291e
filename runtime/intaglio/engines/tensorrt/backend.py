"""The backend of the TensorRT libraries: one card, one stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from intaglio.builds.manifest import RUNTIME_CACHE_NAME
from intaglio.contract.tensors import NetworkSpec, Precision
from intaglio.engines.interface import Array, DeviceArray
from intaglio.engines.tensorrt.device import CudaArray, Device
from intaglio.engines.tensorrt.engine import TensorRTEngine, context_settings
from intaglio.engines.tensorrt.library import Cuda, LibraryName, import_tensorrt, open_tensorrt
from intaglio.engines.tensorrt.runtime_cache import RuntimeCaches

__all__ = ["TensorRTBackend"]


class TensorRTBackend:
    """A library and a device; engines are loaded from plan files."""

    together = None

    def __init__(self, name: LibraryName, *, cuda_graph: bool, rebuild: str, gpu: int) -> None:
        """`gpu` is CUDA's index of the card; `rebuild` is the command that error messages recommend.

        Raises:
            MissingExtra: cuda-python or the library is not installed.
            IntaglioError: there is no such card.
        """
        cuda = Cuda()
        import_tensorrt(name)  # an absent library is named before anything touches the card
        self.name = name
        # Before the library opens: its runtime, and each engine, belong to the card that is current then.
        self.device = Device(cuda, gpu=gpu, cuda_graph=cuda_graph)
        self.library = open_tensorrt(name, rebuild=rebuild)
        self._caches = RuntimeCaches()

    def load(
        self,
        network: NetworkSpec,
        path: Path,
        *,
        precision: Precision,
        replaceable: Mapping[str, Array] | None = None,
    ) -> TensorRTEngine:
        device = self.device
        plan = self.library.load_plan(
            path, network=network.name, gpu=device.gpu, check_card=device.synchronize
        )
        settings = context_settings(
            network.name,
            plan,
            library=self.library,
            caches=self._caches,
            path=path.with_name(RUNTIME_CACHE_NAME),
        )
        engine = TensorRTEngine(
            network, plan, precision=precision, library=self.library, device=self.device, settings=settings
        )
        if replaceable:
            engine.check_refittable(replaceable)
        return engine

    def allocate(self, shape: tuple[int, ...], dtype: str) -> CudaArray:
        return self.device.allocate(shape, dtype)

    def allocate_together(self, shapes: Sequence[tuple[int, ...]], dtype: str) -> list[DeviceArray]:
        return self.device.allocate_together(shapes, dtype)

    def hold(self, values: Array) -> Array:
        return self.device.hold(values)

    def upload(self, target: DeviceArray, source: Array) -> None:
        self.device.upload(target, source)

    def copy(self, target: DeviceArray, source: DeviceArray) -> None:
        self.device.copy(target, source)

    def download(self, source: DeviceArray) -> Array:
        host = self.device.download(source)
        self._caches.write()  # here nobody notices: the caller had to wait anyway
        return host

    def synchronize(self) -> None:
        self.device.synchronize()

    def use_in_this_thread(self) -> None:
        self.device.use_in_this_thread()

    def close(self) -> None:
        """Wait, then free the device's memory; close the engines first."""
        self.device.close()
