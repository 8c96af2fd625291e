"""A ballast takes what it is told to, or says why it cannot."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from benchmarks.measuring.ballast import _take, ballast
from intaglio.errors import ConfigError

MIB = 2**20


def test_without_a_card_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measuring.ballast.read_card_memory", lambda gpu: None)
    with ballast(15.5) as free:
        assert free is None


def test_ballast_that_cannot_be_taken_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measuring.ballast.read_card_memory", lambda gpu: object())
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ConfigError, match="ballast: ended without a word"), ballast(15.5):
        pass


class Card:
    """Allocates nothing above `largest` bytes, and `total` in all."""

    def __init__(self, *, largest: int, total: int) -> None:
        self.largest = largest
        self.left = total
        self.cudaError_t = SimpleNamespace(cudaSuccess=0)

    def cudaMalloc(self, size: int) -> tuple[int, int]:  # noqa: N802
        if size > self.largest or size > self.left:
            return 2, 0
        self.left -= size
        return 0, 4096


@pytest.mark.parametrize(
    ("largest", "total", "refused"),
    [(2**40, 2**40, 0), (96 * MIB, 2**40, 0), (2**40, 900 * MIB, 100 * MIB)],
)
def test_memory_is_taken_in_pieces_where_the_card_refuses_the_whole(
    largest: int, total: int, refused: int
) -> None:
    card = Card(largest=largest, total=total)
    assert _take(card, 1000 * MIB) == pytest.approx(refused, abs=2 * MIB)
    assert total - card.left == pytest.approx(1000 * MIB - refused, abs=2 * MIB)
