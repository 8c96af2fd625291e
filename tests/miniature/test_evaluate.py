"""Thresholds of the evaluation: which figures are held to what, and what is said when one is missed."""

from __future__ import annotations

import pytest

from miniature.evaluate import AT_LEAST, AT_MOST, missed


@pytest.fixture
def figures() -> dict[str, float]:
    """Every figure exactly at its limit."""
    return AT_LEAST | AT_MOST


def test_all_at_their_limits_pass(figures: dict[str, float]) -> None:
    assert missed(figures) == []


def test_no_figure_has_both_limits() -> None:
    assert not set(AT_LEAST) & set(AT_MOST)


@pytest.mark.parametrize("name", sorted(AT_LEAST))
def test_a_low_figure_is_reported(figures: dict[str, float], name: str) -> None:
    low = AT_LEAST[name] - 0.01
    (line,) = missed(figures | {name: low})
    assert line == f"{name} is {low:.3f}, required at least {AT_LEAST[name]}"


@pytest.mark.parametrize("name", sorted(AT_MOST))
def test_a_high_figure_is_reported(figures: dict[str, float], name: str) -> None:
    high = AT_MOST[name] + 0.01
    (line,) = missed(figures | {name: high})
    assert line == f"{name} is {high:.3f}, required at most {AT_MOST[name]}"


def test_each_missed_figure_has_its_line(figures: dict[str, float]) -> None:
    bad = dict.fromkeys(AT_LEAST, -1.0) | dict.fromkeys(AT_MOST, 2.0)
    assert len(missed(figures | bad)) == len(AT_LEAST) + len(AT_MOST)


def test_not_a_number_does_not_pass(figures: dict[str, float]) -> None:
    assert len(missed({name: float("nan") for name in figures})) == len(figures)


def test_a_figure_that_was_not_measured_is_an_error(figures: dict[str, float]) -> None:
    del figures["autoencoder.psnr"]
    with pytest.raises(KeyError):
        missed(figures)
