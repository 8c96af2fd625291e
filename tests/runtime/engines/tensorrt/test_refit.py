"""The refit of a plan without a card: which weights are set, and when nothing is changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from intaglio.engines.card import CardMemory
from intaglio.engines.tensorrt.device import CudaArray
from intaglio.engines.tensorrt.refit import PlanRefitter
from intaglio.errors import EngineMismatch, IntaglioError

from ....refitting import Plan, fake_device, fake_library


class Refitted:
    """A `PlanRefitter` over `plan`, and how often it was about to change the plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.changes = 0
        given: Any = plan
        self.refitter: Any = PlanRefitter("unet", given, library=fake_library(), device=fake_device())

    def refit(self, weights: dict[str, Any]) -> None:
        self.refitter.refit(weights, before_change=self.count)

    def count(self) -> None:
        self.changes += 1

    def joined(self, sizes: dict[str, int]) -> list[frozenset[str]]:
        return list(self.refitter.joined(sizes, precision="fp32"))


def two_weights(*, groups: tuple[frozenset[str], ...] = (), works: bool = True) -> Refitted:
    weights = {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}
    return Refitted(Plan(weights, groups, works))


def two() -> Any:
    return np.zeros(2, np.float32)


def test_named_weights_are_set() -> None:
    made = two_weights()
    values = np.arange(4, dtype=np.float32).reshape(2, 2)[:, 0]  # not contiguous
    made.refit({"a": values})
    (given,) = made.plan.refitted
    np.testing.assert_array_equal(given["a"], [0, 2])
    assert given["a"].flags["C_CONTIGUOUS"]
    assert made.changes == 1


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"c": two()}, "unet: not refittable: c"),
        ({"a": np.zeros(3, np.float32), "b": two()}, "unet.a: shape or type does not fit"),
        ({"a": two()}, "refit also needs b"),
    ],
)
def test_refused_before_anything_is_changed(weights: dict[str, Any], reason: str) -> None:
    made = two_weights(groups=(frozenset("ab"),))
    with pytest.raises(EngineMismatch, match=rf"{reason}.*rebuild with: intaglio build configs/x.yaml"):
        made.refit(weights)
    assert made.plan.refitted == []
    assert made.changes == 0


def test_values_on_the_card_are_given_by_address() -> None:
    made = two_weights()
    cuda: Any = SimpleNamespace(runtime=SimpleNamespace(cudaFree=int))
    made.refit({"a": CudaArray(4096, (1, 2), np.dtype("float16"), owner=None, cuda=cuda)})
    ((_, given),) = made.plan.refitted[0].items()
    assert (given.kind, given.address, given.size) == ("half", 4096, 2)
    assert made.plan.located == [("a", "device")]


def test_one_refitter_keeps_nothing_of_the_refit_before() -> None:
    made = two_weights()
    made.refit({"a": two()})
    first = made.refitter.check([])
    made.refit({"b": two()})
    assert made.refitter.check([]) is first
    assert not first.weights_validation
    assert [sorted(given) for given in made.plan.refitted] == [["a"], ["b"]]
    with pytest.raises(EngineMismatch, match="does not fit"):
        made.refit({"a": two(), "b": np.zeros(3, np.float32)})
    assert first.given == {}


def test_a_refit_that_fails_says_what_memory_the_card_has(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = CardMemory(total=2**34, used=2**34 - 5 * 2**20, free=5 * 2**20)
    monkeypatch.setattr("intaglio.engines.tensorrt.refit.read_card_memory", lambda gpu: memory)
    with pytest.raises(IntaglioError, match="unet: refit failed with 5 MiB of the card's memory free; see"):
        two_weights(works=False).refit({"a": two()})


def test_weights_that_the_plan_lacks_are_refused() -> None:
    made = two_weights()
    made.refitter.check(["a", "b"])
    with pytest.raises(EngineMismatch, match="not refittable: c"):
        made.refitter.check(["a", "c"])


# --- what the compiler joined ---

QUERIES = frozenset({"0.attn1.to_q", "0.attn1.to_k", "0.attn1.to_v"})
TEXT = frozenset(f"{block}.attn2.{name}" for block in (0, 1) for name in ("to_k", "to_v"))
"""One text is read by every block's cross-attention."""
ALONE = ("0.attn2.to_q", "0.attn1.to_out.0", "proj_in")


def unet(groups: tuple[frozenset[str], ...] = (QUERIES, TEXT)) -> Refitted:
    names = sorted({*QUERIES, *TEXT, *ALONE})
    weights = {name: np.full(3 + index, index, np.float32) for index, name in enumerate(names)}
    return Refitted(Plan(weights, groups))


def sizes(made: Refitted) -> dict[str, int]:
    return {name: values.size for name, values in made.plan.weights.items()}


def test_it_says_what_must_be_given_together() -> None:
    made = unet()
    assert set(made.joined(sizes(made))) == {QUERIES, TEXT}
    assert made.plan.refitted == [], "nothing is refitted to find out"
    assert made.refitter.check([]).given == {}
    for name in ALONE:
        made.refit({name: made.plan.weights[name]})
    with pytest.raises(EngineMismatch, match=r"refit also needs 0\.attn1\.to_k, 0\.attn1\.to_v; "):
        made.refit({"0.attn1.to_q": made.plan.weights["0.attn1.to_q"]})
    for group in (QUERIES, TEXT):
        made.refit({name: made.plan.weights[name] for name in group})
    assert two_weights().joined({"a": 2, "b": 2}) == []


def test_groups_that_need_each_other_are_one() -> None:
    one, other = frozenset({"0.attn1.to_q", "proj_in"}), frozenset({"proj_in", "0.attn1.to_v"})
    made = unet((one, other))
    assert made.joined(sizes(made)) == [one | other]


def test_joined_with_what_the_build_did_not_keep() -> None:
    made = unet()
    known = sizes(made)
    del known["1.attn2.to_v"]
    with pytest.raises(
        EngineMismatch,
        match=r"is joined with 1\.attn2\.to_v, whose values the build did not keep; rebuild with",
    ):
        made.joined(known)
    with pytest.raises(EngineMismatch, match=r"unet\.proj_in: size or type does not fit"):
        made.joined(sizes(made) | {"proj_in": 1})
