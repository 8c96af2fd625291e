"""Means, medians and their errors, with numbers computed by hand."""

from __future__ import annotations

import pytest

from intaglio_client.tune.pairs import mean_figure, median_figure, paired_difference, paired_ratio


def test_a_mean_and_its_standard_error() -> None:
    found = mean_figure([1.0, 2.0, 3.0, 6.0])  # squares of deviations: 4 + 1 + 0 + 9 = 14, over 3, over 4
    assert found.value == 3.0
    assert found.error == pytest.approx((14 / 3 / 4) ** 0.5)
    assert found.n == 4
    assert found.shown(1) == "3.0 ± 1.1"


def test_an_outlier_does_not_move_a_median() -> None:
    found = median_figure([1.0, 1.1, 0.9, 1.0, 50.0])  # deviations 0, 0.1, 0.1, 0, 49: their median is 0.1
    assert found.value == 1.0
    assert found.error == pytest.approx(1.2533 * 1.4826 * 0.1 / 5**0.5, rel=1e-3)


def test_differences_are_of_pairs() -> None:
    """Scenes are 20 dB apart, and their differences are all near 1."""
    found = paired_difference([21.0, 31.0, 41.5], [20.0, 30.0, 40.0])
    assert found.value == pytest.approx(3.5 / 3)
    assert found.error == pytest.approx(1 / 6)  # deviations -1/6, -1/6, 1/3: variance 1/12, over 3, root


def test_ratios_are_of_pairs() -> None:
    assert paired_ratio([1.0, 3.0, 100.0], [2.0, 6.0, 400.0]).value == 0.5


@pytest.mark.parametrize("values", [[], [1.0]])
def test_one_value_has_no_error(values: list[float]) -> None:
    with pytest.raises(ValueError, match="no standard error"):
        mean_figure(values)
