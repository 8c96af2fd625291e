"""Counting work on networks without weights."""

from __future__ import annotations

import pytest
import torch

from intaglio_export.card.work import count_work, image_work
from intaglio_export.weights.seeded import ARCHITECTURES


def test_operations_and_bytes_of_a_matrix_product() -> None:
    layer = torch.nn.Linear(8, 4, bias=False, device="meta")
    work = count_work(layer, torch.empty(3, 8, device="meta"))
    assert work.operations == {"product": 2 * 3 * 8 * 4, "convolution": 0, "attention": 0}
    assert work.bytes == 2 * (3 * 8 + 8 * 4 + 3 * 4)
    assert work.elementwise_bytes == 0


def test_elementwise_work_has_no_operations() -> None:
    work = count_work(torch.nn.SiLU(), torch.empty(100, device="meta"))
    assert work.total == work.bytes == 0
    assert work.elementwise_bytes == 2 * 200, "read once, written once"


def test_each_kind_of_work_is_counted_as_its_own() -> None:
    convolution = count_work(
        torch.nn.Conv2d(4, 6, 3, bias=False, device="meta"), torch.empty(1, 4, 5, 5, device="meta")
    )
    assert convolution.operations == {"product": 0, "convolution": 2 * 9 * 4 * 9 * 6, "attention": 0}
    tokens = torch.empty(1, 2, 7, 8, device="meta")
    attention = count_work(torch.nn.functional.scaled_dot_product_attention, tokens, tokens, tokens)
    assert attention.operations == {"product": 0, "convolution": 0, "attention": 2 * 2 * 2 * 7 * 7 * 8}


def test_sums_and_multiples() -> None:
    work = count_work(torch.nn.Linear(8, 4, device="meta"), torch.empty(3, 8, device="meta"))
    assert work + work == work.times(2)
    assert work.times(3).total == 3 * work.total


def test_guidance_doubles_the_unet_and_leaves_the_vae() -> None:
    guided, single = (
        image_work(ARCHITECTURES["sdxl-reduced"], width=64, height=64, guidance=guidance)
        for guidance in (True, False)
    )
    assert guided["unet"].total == pytest.approx(2 * single["unet"].total, rel=0.01)
    assert guided["vae_decoder"] == single["vae_decoder"]
    assert guided["controlnet"].total < guided["unet"].total
