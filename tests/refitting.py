"""A stand-in for TensorRT's refitter, which behaves as the real one was seen to on a card.

Loading a real plan needs a card.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from intaglio.contract.tensors import NetworkSpec
from intaglio.engines.interface import Array
from intaglio.engines.tensorrt.device import Device
from intaglio.engines.tensorrt.engine import ContextSettings, TensorRTEngine
from intaglio.engines.tensorrt.library import TensorRT
from intaglio.engines.tensorrt.runtime_cache import RuntimeCaches


@dataclass
class Plan:
    """What an engine has in it."""

    weights: dict[str, Array]
    groups: tuple[frozenset[str], ...] = ()
    """Weights that the compiler joined: of one that is given, all others are missing."""
    works: bool = True
    refitted: list[dict[str, Any]] = field(default_factory=list)
    located: list[tuple[str, str]] = field(default_factory=list)
    num_io_tensors: int = 0


@dataclass
class Refitter:
    """`tensorrt.Refitter`: keeps what it is given until that is unset, and refits nothing while a joined
    weight is missing.
    """

    plan: Plan
    logger: Any
    given: dict[str, Any] = field(default_factory=dict)
    weights_validation: bool = True

    def get_all_weights(self) -> list[str]:
        return list(self.plan.weights)

    def set_named_weights(self, name: str, weights: Any, location: str) -> bool:
        own = self.plan.weights[name]
        fits = bool(weights.size == own.size and getattr(weights, "dtype", own.dtype) == own.dtype)
        if fits:
            self.given[name] = weights
            self.plan.located.append((name, location))
        return fits

    def unset_named_weights(self, name: str) -> bool:
        return self.given.pop(name, None) is not None

    def get_missing_weights(self) -> list[str]:
        needed = {name for group in self.plan.groups if group & set(self.given) for name in group}
        return [name for name in self.plan.weights if name in needed - set(self.given)]

    def refit_cuda_engine(self) -> bool:
        assert not self.get_missing_weights()
        self.plan.refitted.append(dict(self.given))
        for name, values in self.given.items():
            if self.plan.works and isinstance(values, np.ndarray):
                self.plan.weights[name] = values.reshape(self.plan.weights[name].shape).copy()
        return self.plan.works


def fake_library() -> TensorRT:
    """TensorRT whose refitters are `Refitter`s."""
    module = SimpleNamespace(
        Refitter=Refitter,
        Weights=_weights,
        DataType=SimpleNamespace(HALF="half"),
        TensorLocation=SimpleNamespace(HOST="host", DEVICE="device"),
    )
    anything: Any = None
    return TensorRT("tensorrt", module, anything, anything, "intaglio build configs/x.yaml")


def fake_device() -> Device:
    """A device that only waits."""
    return cast("Device", SimpleNamespace(gpu=0, synchronize=lambda: None))


def refittable_engine(plan: Plan) -> TensorRTEngine:
    """A `TensorRTEngine` over `plan`."""
    given: Any = plan
    return TensorRTEngine(
        NetworkSpec("unet", (), ()),
        given,
        precision="fp32",
        library=fake_library(),
        device=fake_device(),
        settings=ContextSettings(None, RuntimeCaches()),
    )


def _weights(*given: Any) -> Any:
    """`tensorrt.Weights`: of an array, or of a type, an address and a size."""
    if len(given) == 1:
        return given[0]
    kind, address, size = given
    return SimpleNamespace(kind=kind, address=address, size=size)
