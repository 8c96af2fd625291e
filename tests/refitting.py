"""TensorRT's refitter as far as it was seen on a card, and a `TensorRTEngine` over it: opening a real one
needs a card.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from intaglio.contract.tensors import NetworkSpec
from intaglio.engines.interface import Array
from intaglio.tensorrt_engine import TensorRTEngine


@dataclass
class Plan:
    """What an engine has in it."""

    weights: dict[str, Array]
    groups: tuple[frozenset[str], ...] = ()
    """Weights that the compiler joined: of one that is given, all others are missing."""
    works: bool = True
    refitted: list[dict[str, Any]] = field(default_factory=list)
    located: list[tuple[str, str]] = field(default_factory=list)


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


def refittable_engine(plan: Plan) -> Any:
    """`TensorRTEngine` of `plan`, with one context that counts how often its graphs were forgotten."""
    made: Any = object.__new__(TensorRTEngine)
    trt = SimpleNamespace(
        Refitter=Refitter,
        Weights=lambda *given: (
            given[0] if len(given) == 1 else SimpleNamespace(kind=given[0], address=given[1], size=given[2])
        ),
        DataType=SimpleNamespace(HALF="half"),
        TensorLocation=SimpleNamespace(HOST="host", DEVICE="device"),
    )
    made.network, made.precision = NetworkSpec("unet", (), ()), "fp32"
    made.backend = SimpleNamespace(
        trt=trt, logger=None, rebuild="intaglio build configs/x.yaml", synchronize=lambda: None
    )
    made.plan, made._refitter = plan, None
    made._contexts = {0: SimpleNamespace(forgotten=0)}
    context = made._contexts[0]
    context.forget_graphs = lambda: setattr(context, "forgotten", context.forgotten + 1)
    return made
