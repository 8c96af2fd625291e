"""Weights in a prompt: brackets that make words count more or less.

They follow AUTOMATIC1111's stable-diffusion-webui (modules/prompt_parser.py, wiki "Attention/emphasis"):

    (word)       times 1.1          (word:1.3)   times 1.3
    [word]       divided by 1.1     \\( \\) \\[ \\]  brackets as text

Brackets nest, and their factors multiply. A bracket without a partner is text, so `:(` stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["WeightedText", "parse_weights"]


@dataclass(frozen=True, slots=True)
class WeightedText:
    """A piece of prompt and how much it counts."""

    text: str
    weight: float = 1.0


def parse_weights(text: str) -> list[WeightedText]:
    """Text without its brackets, in pieces of one weight each; nested weights are multiplied.

    It takes time in proportion to the length of `text`, however deep its brackets nest.
    """
    marks = list(_MARKS.finditer(text))
    factors = _bracket_factors(marks)
    pieces: list[WeightedText] = []
    weights = [1.0]
    joins = False  # whether nothing but text lies between the last piece and what comes next
    position = 0
    for mark in marks:
        joins = _append(pieces, text[position : mark.start()], weights[-1], joins=joins) or joins
        position = mark.end()
        if mark.start() not in factors:
            joins = _append(pieces, mark[0].removeprefix("\\"), weights[-1], joins=joins) or joins
            continue
        joins = False
        if mark[0] in _OPENING:
            weights.append(weights[-1] * factors[mark.start()])
        else:
            weights.pop()
    _append(pieces, text[position:], weights[-1], joins=joins)
    return pieces


# Possessive (`++`): a number gives no digit back, so a long one without its bracket takes no square time.
_MARKS: Final = re.compile(r"\\[\\()\[\]]|[(\[\])]|:\s*+(?P<weight>[+-]?(?:\d++(?:\.\d*+)?|\.\d++))\s*+\)")


_OPENING: Final = ("(", "[")


_PARTNER: Final[Mapping[str, str]] = {")": "(", "]": "["}


_FACTOR: Final[Mapping[str, float]] = {")": 1.1, "]": 1 / 1.1}


def _bracket_factors(marks: Sequence[re.Match[str]]) -> dict[int, float]:
    """Factor by position of every bracket that has a partner, of both; the others are text.

    A closing bracket belongs to the last opening one before it that has none yet, if that is of its kind.
    """
    factors: dict[int, float] = {}
    opened: list[re.Match[str]] = []
    for mark in marks:
        sign = mark[0]
        if sign in _OPENING:
            opened.append(mark)
        elif sign[0] != "\\" and opened and opened[-1][0] == _PARTNER[sign[-1]]:
            factor = float(mark["weight"]) if mark["weight"] else _FACTOR[sign]
            factors[opened.pop().start()] = factor
            factors[mark.start()] = factor
    return factors


def _append(pieces: list[WeightedText], text: str, weight: float, *, joins: bool) -> bool:
    """Add a piece; whether there was any text.

    Text joins the piece before it where no weight begins or ends between them, or where neither has a weight:
    a word with a lone bracket in it is tokenized whole.
    """
    if not text:
        return False
    if pieces and (joins or pieces[-1].weight == weight == 1.0):
        pieces[-1] = WeightedText(pieces[-1].text + text, weight)
    else:
        pieces.append(WeightedText(text, weight))
    return True
