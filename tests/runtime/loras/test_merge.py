"""Adding LoRAs to matrices: the sum in float32, cast once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from intaglio.contract.sdxl import LARGEST_RANK
from intaglio.contract.tensors import Precision
from intaglio.loras.merge import Recipe, Term, groups, largest_value

from .merging import open_merge


def term(rng: np.random.Generator, shape: tuple[int, int], *, rank: int, strength: float) -> Term:
    left, right = (rng.standard_normal((rank, side), np.float32) for side in shape)
    return Term(left, right, strength, reach=1e3)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_sums_in_float32_and_casts_once(tmp_path: Path, precision: Precision) -> None:
    merge, rng = open_merge(tmp_path, precision=precision), np.random.default_rng(0)
    recipes: dict[str, Recipe] = {}
    for number, shape in enumerate([(96, 64), (64, 96), (96, 64), (1, 8)]):
        terms = (term(rng, shape, rank=64, strength=0.7), term(rng, shape, rank=3, strength=-1.25))
        recipes[str(number)] = Recipe(
            rng.standard_normal(shape, np.float32).astype(merge.dtype), terms[: 1 + number % 2]
        )
    recipes["untouched"] = Recipe(rng.standard_normal((5, 7), np.float32).astype(merge.dtype))
    found = {name: merge.backend.download(values) for name, values in merge.stage(recipes).items()}
    np.testing.assert_array_equal(found["untouched"], recipes["untouched"].values)
    for name, recipe in recipes.items():
        exact = recipe.values.astype(np.float64) + sum(
            t.strength * (t.left.astype(np.float64).T @ t.right) for t in recipe.terms
        )
        step = np.spacing(np.abs(exact).astype(merge.dtype)).astype(np.float64)
        # Half a unit of the last place is the cast's; the rest is what float32 sums of this length lose.
        assert (np.abs(found[name].astype(np.float64) - exact) <= 0.5 * step + 2e-5).all(), name


def test_what_it_leaves_to_the_host(tmp_path: Path) -> None:
    merge, rng = open_merge(tmp_path, precision="fp16"), np.random.default_rng(0)
    one = term(rng, (8, 8), rank=4, strength=2.0)
    assert merge.admits((8, 8), largest=1.0, terms=[one])
    assert not merge.admits((8, 8, 3, 3), largest=1.0, terms=[one]), "a kernel"
    assert not merge.admits((8, 20480), largest=1.0, terms=[one]), "larger than it was built for"
    assert not merge.admits(
        (8, 8), largest=1.0, terms=[term(rng, (8, 8), rank=LARGEST_RANK + 1, strength=1.0)]
    )
    assert not merge.admits((8, 8), largest=63000.0, terms=[one]), (
        "63000 + 2 x 1000 may be infinite in half precision"
    )
    assert not merge.admits((8, 8), largest=float("inf"), terms=[one])


def test_groups_stay_within_the_limit() -> None:
    sizes = {"a": 3, "b": 3, "c": 9, "d": 1, "e": 1}
    assert list(groups(sizes, 6)) == [["a", "b"], ["c"], ["d", "e"]]
    assert list(groups(sizes, 100)) == [list(sizes)]
    assert list(groups({}, 6)) == []


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_largest_magnitude(dtype: str) -> None:
    values = np.array([[1.5, -7.25], [0.0, 3.0]], dtype)
    assert largest_value(values) == 7.25
    for wrong in (np.nan, np.inf, -np.inf):
        assert not largest_value(np.array([1.0, wrong], dtype)) < 1e38
    assert largest_value(np.empty((0, 2), dtype)) == 0
