"""Buffers for the tensors of an engine."""

from __future__ import annotations

from collections.abc import Mapping

from intaglio.contract.tensors import AxisSizes
from intaglio.engines.interface import Backend, DeviceArray, Engine

__all__ = ["allocate_tensors"]


def allocate_tensors(
    backend: Backend, engine: Engine, sizes: AxisSizes, *, shared: Mapping[str, DeviceArray] | None = None
) -> dict[str, DeviceArray]:
    """A buffer for every input and output of `engine` at `sizes`.

    Tensors named in `shared` get no new buffer; the result contains all of `shared`.
    """
    found = dict(shared or {})
    for spec in engine.network.tensors:
        if spec.name not in found:
            found[spec.name] = backend.allocate(spec.shape(sizes), spec.numpy_dtype(engine.precision))
    return found
