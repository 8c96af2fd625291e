"""Replacing the weights of a plan on the card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from intaglio.contract.tensors import Precision, compute_dtype
from intaglio.engines.card import read_card_memory
from intaglio.engines.interface import Array, DeviceArray
from intaglio.engines.tensorrt.device import Device, cuda_array
from intaglio.engines.tensorrt.library import TensorRT
from intaglio.errors import IntaglioError

if TYPE_CHECKING:
    import tensorrt as trt  # type: ignore[import-not-found,unused-ignore]

__all__ = ["PlanRefitter", "located_weights"]


class PlanRefitter:
    """The weights of one plan: which can be replaced, which only together, and the replacing."""

    def __init__(self, network: str, plan: trt.ICudaEngine, *, library: TensorRT, device: Device) -> None:
        self._network = network
        self._plan = plan
        self._library = library
        self._device = device
        self._refitter: trt.Refitter | None = None
        self._refittable: frozenset[str] = frozenset()

    def check(self, names: Iterable[str]) -> trt.Refitter:
        """The plan's refitter.

        Raises:
            EngineMismatch: one of `names` cannot be replaced.
        """
        if self._refitter is None:  # made once: what it prepares does not depend on the weights
            refitter = self._make_refitter()
            # Checks conversions and sparsity, of which a strongly typed network has none.
            refitter.weights_validation = False
            self._refitter = refitter
            self._refittable = frozenset(refitter.get_all_weights())
        if unknown := sorted(set(names) - self._refittable):
            raise self._library.mismatch(f"{self._network}: not refittable: {', '.join(unknown[:5])}")
        return self._refitter

    def refit(self, weights: Mapping[str, Array | DeviceArray], *, before_change: Callable[[], None]) -> None:
        """Replace all of `weights`, or none on an error.

        `before_change` is called when all checks have passed, before the plan changes.

        Raises:
            EngineMismatch: a weight is unknown, does not fit, or needs another one that is missing.
            IntaglioError: TensorRT failed.
        """
        refitter = self.check(weights)
        kept = {name: _contiguous(values) for name, values in weights.items()}  # TensorRT keeps pointers only
        self._device.synchronize()
        given: list[str] = []
        try:
            for name, values in kept.items():
                self._give(refitter, name, values, reason="shape or type does not fit the engine")
                given.append(name)
            if missing := refitter.get_missing_weights():
                raise self._library.mismatch(f"{self._network}: refit also needs {', '.join(missing[:5])}")
            before_change()
            if not refitter.refit_cuda_engine():
                self._device.synchronize()  # where the card failed, this says so
                raise IntaglioError(f"{self._network}: refit failed{self._free_memory()}; see the log")
        finally:
            _take_back(refitter, given)

    def _free_memory(self) -> str:
        """What the card has free, in words: a refit needs room for the new weights."""
        memory = read_card_memory(self._device.gpu)
        return "" if memory is None else f" with {memory.free >> 20} MiB of the card's memory free"

    def joined(self, sizes: Mapping[str, int], *, precision: Precision) -> Sequence[frozenset[str]]:
        """Groups of weights that must be replaced together; `sizes` is the number of values of each weight.

        Asks a refitter that is given one weight after another and never refits.

        Raises:
            EngineMismatch: a weight is joined with one that `sizes` lacks, or has another size.
        """
        self.check(sizes)
        refitter = self._make_refitter()
        any_values = np.empty(max(sizes.values(), default=0), compute_dtype(precision))
        values = {name: any_values[:size] for name, size in sizes.items()}
        group_of: dict[str, frozenset[str]] = {}
        for name in sizes:
            if name not in group_of:
                group = self._needed_with(name, refitter, values)
                for one in group & group_of.keys():
                    group |= group_of[one]
                group_of |= dict.fromkeys(group, group)
        return [group for group in dict.fromkeys(group_of.values()) if len(group) > 1]

    def _needed_with(self, name: str, refitter: trt.Refitter, values: Mapping[str, Array]) -> frozenset[str]:
        """`name` and all weights that `refitter` demands with it; it holds no weight before and after."""
        given: list[str] = []
        wanted = {name}
        try:
            while wanted:
                for one in sorted(wanted):
                    if one not in values:
                        raise self._library.mismatch(
                            f"{self._network}: {name} is joined with {one}, "
                            "whose values the build did not keep"
                        )
                    self._give(refitter, one, values[one], reason="size or type does not fit the engine")
                    given.append(one)
                wanted = set(refitter.get_missing_weights()) - set(given)
        finally:
            _take_back(refitter, given)
        return frozenset(given)

    def _make_refitter(self) -> trt.Refitter:
        refitter: trt.Refitter = self._library.module.Refitter(self._plan, self._library.logger)
        return refitter

    def _give(self, refitter: trt.Refitter, name: str, values: Array | DeviceArray, *, reason: str) -> None:
        if not refitter.set_named_weights(name, *located_weights(self._library, values)):
            raise self._library.mismatch(f"{self._network}.{name}: {reason}")


def located_weights(library: TensorRT, values: Array | DeviceArray) -> tuple[trt.Weights, Any]:
    """`values` as TensorRT takes them, and their location (host or device)."""
    module = library.module
    if isinstance(values, np.ndarray):
        return module.Weights(values), module.TensorLocation.HOST
    device = cuda_array(values)
    weights = module.Weights(library.data_type(device.dtype.name), device.address, device.size)
    return weights, module.TensorLocation.DEVICE


def _contiguous(values: Array | DeviceArray) -> Array | DeviceArray:
    return np.ascontiguousarray(values) if isinstance(values, np.ndarray) else values


def _take_back(refitter: trt.Refitter, names: Iterable[str]) -> None:
    for name in names:
        refitter.unset_named_weights(name)
