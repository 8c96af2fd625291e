"""What counted work says of a card that was not measured."""

from __future__ import annotations

import pytest

from benchmarks.speed.projection import CARDS, PUBLISHED, Card, Published, efficiencies, project
from intaglio_export.card.work import Work

CARD = Card("test", peak=100.0, bandwidth=10.0, gib=16)


def work_of(operations: float, size: float) -> Work:
    return Work({"product": operations, "convolution": 0, "attention": 0}, size, 0)


def test_seconds_follow_operations_or_bytes() -> None:
    assert project(work_of(100, 1), CARD, [0.5, 0.25]) == (2.0, pytest.approx(1 / 0.375), 4.0)
    assert project(work_of(100, 1000), CARD, [0.5, 0.25]) == (100.0, 100.0, 100.0), "the memory is the limit"
    assert project(work_of(100, 1).times(2), CARD, [0.5])[1] == 4.0
    for shares in ([], [0.0], [1.5]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            project(work_of(1, 1), CARD, shares)


def test_efficiency_is_what_a_published_run_reached() -> None:
    work = {"unet": work_of(50, 0), "vae_decoder": work_of(20, 0)}
    assert efficiencies([Published(CARD, 4.0, 2), Published(CARD, 1.0, 1, whole=False)], work) == [0.3, 0.5]


def test_a_projection_of_what_was_published_contains_it() -> None:
    """Each calibrating card lies in the range that all of them give."""
    work = {"unet": work_of(13.5e12, 45e9), "vae_decoder": work_of(10.5e12, 11e9)}
    reached = efficiencies(PUBLISHED, work)
    for run in PUBLISHED:
        total = work["unet"].times(run.steps) + (work["vae_decoder"] if run.whole else work_of(0, 0))
        least, middle, most = project(total, run.card, reached)
        assert least <= run.seconds * 1.001
        assert run.seconds <= most * 1.001
        assert least <= middle <= most
    assert all(card.gib == 16 for card in CARDS)
