"""Prompts in chunks: what diffusers' SDXL pipeline feeds its encoders, and what it cannot."""

from __future__ import annotations

import random

import numpy as np
import pytest
from transformers import CLIPTokenizer

from intaglio.errors import InvalidRequest
from intaglio.stages.preprocess.prompt import TokenChunks, align_chunks, encode_prompt
from intaglio.stages.preprocess.tokenizer import CONTEXT, PromptTokenizer

from .prompts import FOLDERS, OURS, computing, fed_by_diffusers, random_prompt

COMMA = 267


PLAIN = [
    "",
    " ",
    "\n\t ",
    "a photo of a cat",
    "wow!!! really!",
    "Crème brûlée, 8k",
    "16:9, :), c'est",
    "a\\b",
    "a (",
    "] [",
]


@pytest.mark.parametrize("text", PLAIN)
def test_plain_prompts_are_what_diffusers_feeds(
    name: str, ours: PromptTokenizer, theirs: CLIPTokenizer, text: str
) -> None:
    chunks = encode_prompt(text, ours, max_chunks=1)
    assert chunks.ids.tolist() == [fed_by_diffusers(theirs, text)]
    assert chunks.ids.dtype == np.int64
    assert chunks.weights.dtype == np.float32
    assert (chunks.weights == 1).all()


def test_random_plain_prompts_are_what_diffusers_feeds(ours: PromptTokenizer, theirs: CLIPTokenizer) -> None:
    source, plain = random.Random(21), 0
    for _ in range(300):
        text = random_prompt(source)
        if len(ours.token_ids(text)) <= 75:
            plain += 1
            assert encode_prompt(text, ours, max_chunks=1).ids.tolist() == [fed_by_diffusers(theirs, text)]
    assert plain > 250


def test_known_ids_and_padding() -> None:
    cat = [49406, 320, 1125, 539, 320, 2368, 49407]
    assert (
        encode_prompt("a photo of a cat", OURS["tokenizer"], max_chunks=1).ids[0].tolist()
        == cat + [49407] * 70
    )
    assert (
        encode_prompt("a photo of a cat", OURS["tokenizer_2"], max_chunks=1).ids[0].tolist() == cat + [0] * 70
    )


def test_weights_land_on_their_tokens(ours: PromptTokenizer) -> None:
    chunks = encode_prompt("a (fluffy cat:1.5), [hat]", ours, max_chunks=1)
    plain = encode_prompt("a fluffy cat, hat", ours, max_chunks=1)
    np.testing.assert_array_equal(chunks.ids, plain.ids)
    np.testing.assert_allclose(chunks.weights[0, :7], [1, 1, 1.5, 1.5, 1, 1 / 1.1, 1])
    assert (chunks.weights[0, 7:] == 1).all()


def words(count: int) -> str:
    return " ".join(["cat"] * count)


def lengths(chunks: TokenChunks) -> list[int]:
    """Prompt tokens of each chunk."""
    return [row.tolist().index(49407) - 1 for row in chunks.ids]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words(75), [75]),
        (words(76), [75, 1]),
        (words(160), [75, 75, 10]),
        (f"{words(60)}, {words(30)}", [61, 30]),
        (f"{words(54)}, {words(30)}", [75, 10]),
        (f"{words(55)}, {words(30)}", [56, 30]),
        (f"{words(74)}, {words(3)}", [75, 3]),
        (f"{words(60)}, {words(14)}", [75]),
        ("a cat BREAK a dog", [2, 2]),
        ("a cat, (a BREAK b:1.2) c", [4, 2]),
        ("BREAK a cat BREAK BREAK", [2]),
        ("BREAK", [0]),
        ("BREAKfast", [1]),
    ],
)
def test_long_prompts_are_cut_into_chunks(text: str, expected: list[int]) -> None:
    chunks = encode_prompt(text, OURS["tokenizer"], max_chunks=4)
    assert lengths(chunks) == expected
    assert chunks.ids.shape == chunks.weights.shape == (len(expected), CONTEXT)


def test_chunks_together_are_the_whole_prompt(ours: PromptTokenizer) -> None:
    text = ", ".join(f"thing number {i} of many" for i in range(60))
    chunks = encode_prompt(text, ours, max_chunks=9)
    joined = [
        token
        for row, length in zip(chunks.ids, lengths(chunks), strict=True)
        for token in row[1 : 1 + length]
    ]
    assert joined == ours.token_ids(text)
    assert all(row[length] == COMMA for row, length in zip(chunks.ids[:-1], lengths(chunks), strict=False))


def test_encoders_and_negative_prompts_are_aligned() -> None:
    """The two tokenizers count exclamation marks differently, so even one prompt can need it."""
    texts = ["wow!!! " * 30, "bad"]
    encoded = [
        (encode_prompt(text, OURS[name], max_chunks=3), OURS[name]) for text in texts for name in FOLDERS
    ]
    assert [len(chunks) for chunks, _ in encoded] == [1, 2, 1, 1]
    aligned = align_chunks(encoded)
    assert [len(chunks) for chunks in aligned] == [2, 2, 2, 2]
    for (before, tokenizer), after in zip(encoded, aligned, strict=True):
        np.testing.assert_array_equal(after.ids[: len(before)], before.ids)
        np.testing.assert_array_equal(after.weights[: len(before)], before.weights)
        for filler in after.ids[len(before) :]:
            np.testing.assert_array_equal(filler, encode_prompt("", tokenizer, max_chunks=1).ids[0])
        assert after.ids.dtype == np.int64
        assert after.weights.dtype == np.float32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (words(226), "negative_prompt: 226 tokens in 4 chunks; allowed: 225 tokens in 3 chunks of 75"),
        ("a BREAK b BREAK c BREAK d", "4 tokens in 4 chunks"),
        ("(a:11)", "a weight of 11; allowed: -10 to 10"),
        ("(" * 30 + "a" + ")" * 30, "a weight of 17.4"),
        ("(a:" + "9" * 400 + ")", "a weight of inf"),
        ("a\ud800b", "allowed: valid Unicode text"),
    ],
)
def test_impossible_prompts_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        encode_prompt(text, OURS["tokenizer"], max_chunks=3, field="negative_prompt")
    assert caught.value.field == "negative_prompt"


@pytest.mark.parametrize("unit", ["a ", "(", "(a", "a,", " ", "(a:1.1)"])
def test_huge_prompts_are_refused_at_once(unit: str) -> None:
    with computing(most=0.5), pytest.raises(InvalidRequest, match="characters"):
        encode_prompt(unit * 5_000_000, OURS["tokenizer"], max_chunks=3)


@pytest.mark.parametrize("unit", ["a ", "(", "(a", "a,", "\\(", "(a:1.1)", "x", "(a)((a)(", ":1"])
def test_the_longest_accepted_text_is_handled_in_no_time(unit: str) -> None:
    with computing(most=2), pytest.raises(InvalidRequest, match=r"tokens in|weight"):
        encode_prompt((unit * 15_000)[: 3 * 75 * 64], OURS["tokenizer"], max_chunks=3)
