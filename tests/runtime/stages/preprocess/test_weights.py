"""Weights of prompts against their rules."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intaglio.stages.preprocess.weights import WeightedText, parse_weights

from .prompts import computing


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a (red) hat", [("a ", 1), ("red", 1.1), (" hat", 1)]),
        ("a (red:1.3) hat", [("a ", 1), ("red", 1.3), (" hat", 1)]),
        ("(red: .5 )", [("red", 0.5)]),
        ("(red:-1)", [("red", -1)]),
        ("[red]", [("red", 1 / 1.1)]),
        ("((red))", [("red", 1.21)]),
        ("([red])", [("red", 1)]),
        ("(a (b:2) c:0.5)", [("a ", 0.5), ("b", 1), (" c", 0.5)]),
        ("(red)(hat)", [("red", 1.1), ("hat", 1.1)]),
        (r"a \(red\) \[hat\] \\ x", [(r"a (red) [hat] \ x", 1)]),
        ("(masterpiece:1.2:1.3)", [("masterpiece:1.2", 1.3)]),
        ("(a:b)", [("a:b", 1.1)]),
        (":( sad", [(":( sad", 1)]),
        ("happy :)", [("happy :)", 1)]),
        ("a) b] (c", [("a) b] (c", 1)]),
        ("(a [b)", [("(a [b)", 1)]),
        ("16:9) (x:1.2.3)", [("16:9) ", 1), ("x:1.2.3", 1.1)]),
        ("", []),
        ("()", []),
    ],
)
def test_weights_are_parsed(text: str, pieces: list[tuple[str, float]]) -> None:
    found = parse_weights(text)
    assert [piece.text for piece in found] == [text for text, _ in pieces]
    assert [piece.weight for piece in found] == pytest.approx([weight for _, weight in pieces])


def weighted_characters(text: str) -> list[tuple[str, float]]:
    """The rules of weighting said another way: by pairs of positions, each character with its weight."""
    escaping, position = set(), 0
    while position < len(text):
        if text[position] == "\\" and text[position + 1 : position + 2] in list("\\()[]"):
            escaping.add(position)
            position += 1
        position += 1
    escaped = {position + 1 for position in escaping}
    gone, weights = set(escaping), [1.0] * len(text)
    opened: list[int] = []
    for end, sign in enumerate(text):
        if end in escaped or sign not in "()[]":
            continue
        if sign in "([":
            opened.append(end)
        elif opened and text[opened[-1]] + sign in ("()", "[]"):
            begin = opened.pop()
            number = re.search(r":\s*([+-]?(\d+\.?\d*|\.\d+))\s*$", text[begin + 1 : end])
            factor = 1.1 if sign == ")" else 1 / 1.1
            if sign == ")" and number:
                factor = float(number[1])
                gone |= set(range(begin + 1 + number.start(), end))
            gone |= {begin, end}
            for inside in range(begin + 1, end):
                weights[inside] *= factor
    return [(text[place], weights[place]) for place in range(len(text)) if place not in gone]


BRACKET_PARTS = [
    "(",
    ")",
    "[",
    "]",
    "(a",
    "b)",
    ":1.3)",
    ":2)",
    ": .5 )",
    "\\(",
    "\\)",
    "\\\\",
    "\\",
    ":",
    "a",
    " ",
    "1",
]


@settings(max_examples=2000, deadline=None, derandomize=True)
@given(parts=st.lists(st.sampled_from(BRACKET_PARTS), max_size=16))
def test_weights_are_those_of_an_independent_statement_of_the_rules(parts: list[str]) -> None:
    text = "".join(parts)
    found = [(character, piece.weight) for piece in parse_weights(text) for character in piece.text]
    expected = weighted_characters(text)
    assert [character for character, _ in found] == [character for character, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


@given(text=st.text("ab (){}[]:.1\\", max_size=40))
def test_no_letter_is_lost_or_moved(text: str) -> None:
    found = "".join(piece.text for piece in parse_weights(text))
    assert [c for c in found if c in "ab{}"] == [c for c in text if c in "ab{}"]
    plain = "".join(c for c in text if c not in "()[]\\")
    assert parse_weights(plain) == ([WeightedText(plain)] if plain else [])


@pytest.mark.parametrize("text", ["(a" * 7000 + ")" * 400, "[a" * 4800 + "]" * 4800, ":" + "1" * 14_399])
def test_deep_brackets_and_long_numbers_take_no_square_time(text: str) -> None:
    with computing(most=0.5):
        parse_weights(text)
