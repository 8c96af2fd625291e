"""A ballast takes what it is told to, or says why it cannot."""

from __future__ import annotations

import sys

import pytest

from benchmarks.measuring.ballast import ballast
from intaglio.errors import ConfigError


def test_without_a_card_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measuring.ballast.read_card_memory", lambda gpu: None)
    with ballast(15.5) as free:
        assert free is None


def test_ballast_that_cannot_be_taken_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measuring.ballast.read_card_memory", lambda gpu: object())
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ConfigError, match="ballast: ended without a word"), ballast(15.5):
        pass
