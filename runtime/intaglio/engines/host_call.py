"""An engine as a function of host arrays."""

from __future__ import annotations

from intaglio.contract.tensors import AxisSizes
from intaglio.engines.buffers import allocate_tensors
from intaglio.engines.interface import Array, Backend, Bound, DeviceArray, Engine

__all__ = ["HostCall"]


class HostCall:
    """An engine as a function of host arrays, for networks that run once an image: text encoders and VAE.

    It keeps the buffers of the last sizes, so a repeated call of the same sizes allocates nothing.
    """

    def __init__(self, backend: Backend, engine: Engine) -> None:
        self._backend = backend
        self._engine = engine
        self._sizes: dict[str, int] | None = None
        self._arrays: dict[str, DeviceArray] = {}
        self._bound: Bound | None = None

    def __call__(self, sizes: AxisSizes, **inputs: Array) -> dict[str, Array]:
        """Outputs by name; `inputs` are cast to the table's types. Waits for the device."""
        network = self._engine.network
        wanted = {axis: sizes[axis] for axis in network.axis_names}
        if self._bound is None or wanted != self._sizes:
            self.close()  # first: the old buffers and the new ones together would be the peak of memory
            arrays = allocate_tensors(self._backend, self._engine, wanted)
            self._bound = self._engine.bind(wanted, arrays)
            self._arrays = arrays
            self._sizes = wanted
        for spec in network.inputs:
            self._backend.upload(self._arrays[spec.name], inputs[spec.name])
        self._bound.run()
        return {spec.name: self._backend.download(self._arrays[spec.name]) for spec in network.outputs}

    def close(self) -> None:
        """Free the buffers."""
        self._bound = None
        self._arrays = {}
        self._sizes = None
