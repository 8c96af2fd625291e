"""The refit of a TensorRT engine, as far as it goes without a card: which weights are set, and when nothing
is changed.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from intaglio.errors import EngineMismatch, IntaglioError
from intaglio.tensorrt_engine import CudaArray

from ....refitting import Plan, refittable_engine


def engine(*, groups: tuple[frozenset[str], ...] = (), works: bool = True) -> Any:
    """With two refittable weights."""
    return refittable_engine(
        Plan({"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}, groups, works)
    )


def two() -> Any:
    return np.zeros(2, np.float32)


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
        ({"c": two()}, "unet: not refittable: c"),
        ({"a": np.zeros(3, np.float32), "b": two()}, "unet.a: shape or type does not fit"),
        ({"a": two()}, "refit also needs b"),
    ],
)
def test_refused_before_anything_is_changed(weights: dict[str, Any], reason: str) -> None:
    made = engine(groups=(frozenset("ab"),))
    with pytest.raises(EngineMismatch, match=rf"{reason}.*rebuild with: intaglio build configs/x.yaml"):
        made.refit(weights)
    assert made.plan.refitted == []
    assert made._contexts[0].forgotten == 0


def test_values_on_the_card_are_given_by_address() -> None:
    made = engine()
    made.refit(
        {
            "a": CudaArray(
                4096,
                (1, 2),
                np.dtype("float16"),
                owner=None,
                cuda=SimpleNamespace(runtime=SimpleNamespace(cudaFree=int)),
            )
        }
    )
    ((_, given),) = made.plan.refitted[0].items()
    assert (given.kind, given.address, given.size) == ("half", 4096, 2)
    assert made.plan.located == [("a", "device")]


def test_one_refitter_keeps_nothing_of_the_refit_before() -> None:
    made = engine()
    made.refit({"a": two()})
    first = made._refitter
    made.refit({"b": two()})
    assert made._refitter is first
    assert not first.weights_validation
    assert [sorted(given) for given in made.plan.refitted] == [["a"], ["b"]]
    with pytest.raises(EngineMismatch, match="does not fit"):
        made.refit({"a": two(), "b": np.zeros(3, np.float32)})
    assert first.given == {}


def test_a_refit_that_fails_is_an_error() -> None:
    made = engine(works=False)
    with pytest.raises(IntaglioError, match="unet: refit failed"):
        made.refit({"a": two()})


def test_a_plan_without_the_weights_is_refused_at_load() -> None:
    engine().check_refittable(["a", "b"])
    with pytest.raises(EngineMismatch, match="not refittable: c"):
        engine().check_refittable(["a", "c"])


# --- what the compiler joined ------------------------------------------------------------------------------------------

QUERIES = frozenset({"0.attn1.to_q", "0.attn1.to_k", "0.attn1.to_v"})
TEXT = frozenset(f"{block}.attn2.{name}" for block in (0, 1) for name in ("to_k", "to_v"))
"""One text is read by every block's cross-attention."""
ALONE = ("0.attn2.to_q", "0.attn1.to_out.0", "proj_in")


def unet(groups: tuple[frozenset[str], ...] = (QUERIES, TEXT)) -> Any:
    names = sorted({*QUERIES, *TEXT, *ALONE})
    return refittable_engine(
        Plan({name: np.full(3 + index, index, np.float32) for index, name in enumerate(names)}, groups)
    )


def sizes(made: Any) -> dict[str, int]:
    return {name: values.size for name, values in made.plan.weights.items()}


def test_it_says_what_must_be_given_together() -> None:
    made = unet()
    assert set(made.joined(sizes(made))) == {QUERIES, TEXT}
    assert made.plan.refitted == [], "nothing is refitted to find out"
    assert made._refitter.given == {}
    for name in ALONE:
        made.refit({name: made.plan.weights[name]})
    with pytest.raises(EngineMismatch, match=r"refit also needs 0\.attn1\.to_k, 0\.attn1\.to_v; "):
        made.refit({"0.attn1.to_q": made.plan.weights["0.attn1.to_q"]})
    for group in (QUERIES, TEXT):
        made.refit({name: made.plan.weights[name] for name in group})
    assert engine().joined({"a": 2, "b": 2}) == []


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
