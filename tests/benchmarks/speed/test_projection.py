"""Counting work, and what follows from it for a card that was not measured."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed.projection import (
    CARDS,
    PUBLISHED,
    Card,
    Published,
    Work,
    count_work,
    efficiencies,
    image_work,
    project,
)

CARD = Card("test", peak=100.0, bandwidth=10.0, gib=16)


def test_operations_and_bytes_of_a_matrix_product() -> None:
    layer = torch.nn.Linear(8, 4, bias=False, device="meta")
    work = count_work(layer, torch.empty(3, 8, device="meta"))
    assert work.operations == 2 * 3 * 8 * 4
    assert work.bytes == 2 * (3 * 8 + 8 * 4 + 3 * 4)


def test_elementwise_work_is_fused_away() -> None:
    assert count_work(torch.nn.SiLU(), torch.empty(100, device="meta")) == Work(0, 0)


def test_seconds_follow_operations_or_bytes() -> None:
    assert project(Work(100, 1), CARD, [0.5, 0.25]) == (2.0, pytest.approx(1 / 0.375), 4.0)
    assert project(Work(100, 1000), CARD, [0.5, 0.25]) == (100.0, 100.0, 100.0), "the memory is the limit"
    assert project(Work(100, 1).times(2), CARD, [0.5])[1] == 4.0
    for shares in ([], [0.0], [1.5]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            project(Work(1, 1), CARD, shares)


def test_efficiency_is_what_a_published_run_reached() -> None:
    work = {"unet": Work(50, 0), "vae_decoder": Work(20, 0)}
    assert efficiencies([Published(CARD, 4.0, 2), Published(CARD, 1.0, 1, whole=False)], work) == [0.3, 0.5]


def test_a_projection_of_what_was_published_contains_it() -> None:
    """Each calibrating card lies in the range that all of them give."""
    work = {"unet": Work(13.5e12, 45e9), "vae_decoder": Work(10.5e12, 11e9)}
    reached = efficiencies(PUBLISHED, work)
    for run in PUBLISHED:
        total = work["unet"].times(run.steps) + (work["vae_decoder"] if run.whole else Work(0, 0))
        least, middle, most = project(total, run.card, reached)
        assert least <= run.seconds * 1.001
        assert run.seconds <= most * 1.001
        assert least <= middle <= most
    assert all(card.gib == 16 for card in CARDS)


def test_guidance_doubles_the_unet_and_leaves_the_vae() -> None:
    guided, single = (
        image_work(architecture="sdxl-reduced", width=64, height=64, guidance=guidance)
        for guidance in (True, False)
    )
    assert guided["unet"].operations == pytest.approx(2 * single["unet"].operations, rel=0.01)
    assert guided["vae_decoder"] == single["vae_decoder"]
    assert guided["controlnet"].operations < guided["unet"].operations
