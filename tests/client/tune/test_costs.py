"""Costs beside the baseline, with numbers computed by hand."""

from __future__ import annotations

import pytest

from intaglio_client.tune.costs import relative_costs


def test_a_product_is_taken_apart_exactly() -> None:
    """Scenes take 1, 2 and 5 times a second; settings 10, 4 and 3 of it."""
    tables = [{"base": 10 * busy, "four": 4 * busy, "three": 3 * busy} for busy in (1.0, 2.0, 5.0)]
    found = relative_costs(tables, "base")
    assert {name: figure.value for name, figure in found.items()} == {
        "base": pytest.approx(1.0),
        "four": pytest.approx(0.4),
        "three": pytest.approx(0.3),
    }
    assert found["four"].error == pytest.approx(0.0, abs=1e-12)
    assert found["four"].n == 3


def test_a_slow_picture_of_the_baseline_changes_no_ratio_of_its_scene() -> None:
    tables = [{"base": 10.0, "four": 4.0, "three": 3.0} for _ in range(3)]
    tables[0]["base"] = 50.0
    tables[1]["four"] = 9.0
    found = relative_costs(tables, "base")
    assert found["four"].value == pytest.approx(0.4)
    assert found["three"].value == pytest.approx(0.3)


def test_a_second_run_of_a_scene_has_its_own_baseline() -> None:
    """The machine was three times as slow when `three` was drawn."""
    tables = [
        {"base": 10.0, "four": 4.0},
        {"base": 30.0, "three": 9.0},
        {"base": 10.0, "four": 4.0, "three": 3.0},
    ]
    found = relative_costs(tables, "base")
    assert found["three"].value == pytest.approx(0.3)
    assert (found["three"].n, found["base"].n) == (2, 3)


def test_the_error_is_of_both_medians() -> None:
    """Of `four`, logarithms are off by -0.1, 0 and 0.1; the others are exact."""
    off = {0: 0.904837418, 1: 1.0, 2: 1.105170918}
    tables = [{"base": 10.0, "four": 4.0 * off[index], "three": 3.0, "two": 2.0} for index in range(3)]
    found = relative_costs(tables, "base")
    assert found["four"].error == pytest.approx(0.4 * 1.2533 * 1.4826 * 0.1 / 3**0.5, rel=1e-3)
    assert found["base"].error == 0.0
