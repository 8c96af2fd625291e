"""Captions: what a line is, and what says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio_train import DataError
from intaglio_train.captions import alternatives_of, lines_of

SEPARATORS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"
"""What `str.splitlines` splits at besides line ends."""


@pytest.mark.parametrize("separator", SEPARATORS)
def test_only_line_ends_part_alternatives(separator: str) -> None:
    assert lines_of(f"a{separator}b") == [f"a{separator}b"]
    assert lines_of("a\nb\r\nc\rd") == ["a", "b", "c", "d"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.isprintable)))
def test_lines_round_trip(texts: list[str]) -> None:
    assert lines_of("\n".join(texts)) == (texts or [""])


@pytest.mark.parametrize(
    "nothing", ["", "  ", "\t", "\ufeff", "\u200b", "\u2060 \ufeff", "\u2028", "\x00", "\ufffd", "\xad"]
)
def test_text_without_a_sign_is_no_caption(nothing: str) -> None:
    with pytest.raises(DataError, match=r"^a\.txt: empty caption"):
        alternatives_of([nothing], "a.txt")
    assert alternatives_of([nothing, " a cat "], "a.txt") == ("a cat",)


@pytest.mark.parametrize("text", ["猫", "🐈", "e\u0301", "-", "👩\u200d🚀"])
def test_one_sign_is_enough(text: str) -> None:
    assert alternatives_of([text], "a.txt") == (text,)


@pytest.mark.parametrize("value", [None, 5, {"a": 1}, ["a"], b"bytes", True])
def test_what_is_no_text_is_named(value: object) -> None:
    with pytest.raises(DataError, match=r"^m\.jsonl: row 3: its caption is .*; a caption is text"):
        alternatives_of([value], "m.jsonl: row 3")


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(DataError, match="half of a surrogate pair"):
        alternatives_of(["a\ud800"], "a.txt")
