"""The refit of a TensorRT engine, as far as it goes without a card: which weights are set, and when nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from intaglio.errors import EngineMismatch, IntaglioError
from intaglio.tensorrt_engine import CudaArray, TensorRTEngine
from intaglio.tensors import NetworkSpec


@dataclass
class Refitter:
    """`tensorrt.Refitter` with two refittable weights, which must be given together."""

    plan: Any
    logger: Any
    given: dict[str, Any] = field(default_factory=dict)
    weights_validation: bool = True

    def get_all_weights(self) -> list[str]:
        return ["a", "b"]

    def set_named_weights(self, name: str, weights: Any, location: str) -> bool:
        fits = bool(weights.size == 2)
        if fits:
            self.given[name] = weights
            self.plan.located.append((name, location))
        return fits

    def unset_named_weights(self, name: str) -> bool:
        return self.given.pop(name, None) is not None

    def get_missing_weights(self) -> list[str]:
        return [] if not self.plan.together else [name for name in ("a", "b") if name not in self.given]

    def refit_cuda_engine(self) -> bool:
        self.plan.refitted.append(dict(self.given))
        return bool(self.plan.works)


def engine(*, together: bool = False, works: bool = True) -> Any:
    made: Any = object.__new__(TensorRTEngine)  # opening one needs a card
    trt = SimpleNamespace(
        Refitter=Refitter,
        Weights=lambda *given: given[0] if len(given) == 1 else SimpleNamespace(kind=given[0], address=given[1], size=given[2]),
        DataType=SimpleNamespace(HALF="half"),
        TensorLocation=SimpleNamespace(HOST="host", DEVICE="device"),
    )
    made.network = NetworkSpec("unet", (), ())
    made.backend = SimpleNamespace(trt=trt, logger=None, rebuild="intaglio build configs/x.yaml", synchronize=lambda: None)
    made.plan = SimpleNamespace(together=together, works=works, refitted=[], located=[])
    made._refitter = None
    made._contexts = {0: SimpleNamespace(forgotten=0)}
    context = made._contexts[0]
    context.forget_graphs = lambda: setattr(context, "forgotten", context.forgotten + 1)
    return made


def test_named_weights_are_set_and_captured_graphs_forgotten() -> None:
    made = engine()
    values = np.arange(4, dtype=np.float32).reshape(2, 2)[:, 0]  # not contiguous
    made.refit({"a": values})
    (given,) = made.plan.refitted
    np.testing.assert_array_equal(given["a"], [0, 2])
    assert given["a"].flags["C_CONTIGUOUS"]
    assert made._contexts[0].forgotten == 1


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"c": np.zeros(2)}, "unet: not refittable: c"),
        ({"a": np.zeros(3), "b": np.zeros(2)}, "unet.a: shape or type does not fit"),
        ({"a": np.zeros(2)}, "refit also needs b"),
    ],
)
def test_refused_before_anything_is_changed(weights: dict[str, Any], reason: str) -> None:
    made = engine(together=True)
    with pytest.raises(EngineMismatch, match=rf"{reason}.*rebuild with: intaglio build configs/x.yaml"):
        made.refit(weights)
    assert made.plan.refitted == []
    assert made._contexts[0].forgotten == 0


def test_values_on_the_card_are_given_by_address() -> None:
    made = engine()
    made.refit({"a": CudaArray(4096, (1, 2), np.dtype("float16"), owner=None, cuda=SimpleNamespace(runtime=SimpleNamespace(cudaFree=int)))})
    ((_, given),) = made.plan.refitted[0].items()
    assert (given.kind, given.address, given.size) == ("half", 4096, 2)
    assert made.plan.located == [("a", "device")]


def test_one_refitter_keeps_nothing_of_the_refit_before() -> None:
    made = engine()
    made.refit({"a": np.zeros(2)})
    first = made._refitter
    made.refit({"b": np.zeros(2)})
    assert made._refitter is first
    assert not first.weights_validation
    assert [sorted(given) for given in made.plan.refitted] == [["a"], ["b"]]
    with pytest.raises(EngineMismatch, match="does not fit"):
        made.refit({"a": np.zeros(2), "b": np.zeros(3)})
    assert first.given == {}


def test_a_refit_that_fails_is_an_error() -> None:
    made = engine(works=False)
    with pytest.raises(IntaglioError, match="unet: refit failed"):
        made.refit({"a": np.zeros(2)})


def test_a_plan_without_the_weights_is_refused_at_load() -> None:
    engine().check_refittable(["a", "b"])
    with pytest.raises(EngineMismatch, match="not refittable: c"):
        engine().check_refittable(["a", "c"])
