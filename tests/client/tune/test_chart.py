"""The chart as a PNG."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

from intaglio_client.tune.chart import chart_of, ticks
from intaglio_client.tune.choice import presets_of

from .rows import anchors, row, setting


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (19.2, 58.1, [20.0, 30.0, 40.0, 50.0]),
        (0.0, 8.0, [0.0, 2.0, 4.0, 6.0, 8.0]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, most=7) == expected


def test_every_setting_is_a_dot_of_its_solvers_colour() -> None:
    rows = [*anchors(), row(setting(15), 5.0, [38.0, 40.0])]
    data = chart_of(rows, presets_of(rows), title="small")
    assert len(data) < 100_000
    pixels = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert pixels.shape == (620, 1000, 3)
    for colour, dots in (((0x3B, 0x6E, 0xA5), 2), ((0xC0, 0x5A, 0x2E), 3)):
        near = np.abs(pixels - colour).max(axis=2) < 24
        assert near.sum() > 30 * (dots + 1)  # the dots, and one in the legend
