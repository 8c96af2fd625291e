"""Prompts against transformers' CLIPTokenizer and what diffusers' SDXL pipeline feeds its encoders."""

from __future__ import annotations

import random
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from intaglio.errors import ConfigError, InvalidRequest
from intaglio.stages.preprocess.prompt import (
    CONTEXT,
    PromptTokenizer,
    TokenChunks,
    WeightedText,
    align_chunks,
    encode_prompt,
    parse_weights,
)

MODEL = Path(__file__).parents[4] / "miniature" / "model"
FOLDERS = ("tokenizer", "tokenizer_2")
OURS = {name: PromptTokenizer.from_folder(MODEL / name) for name in FOLDERS}
COMMA = 267


@pytest.fixture(scope="module", params=FOLDERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ours(name: str) -> PromptTokenizer:
    return OURS[name]


@pytest.fixture(scope="module")
def theirs(name: str) -> CLIPTokenizer:
    """The class SDXL's model_index.json names, without ftfy even where that is installed."""
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / name)
    if tokenizer.fix_text is not None:
        pytest.skip("ftfy is installed: CLIPTokenizer cleans text in another way than the one we match")
    return tokenizer


def fed_by_diffusers(tokenizer: CLIPTokenizer, text: str) -> list[int]:
    """`StableDiffusionXLPipeline.encode_prompt`, the tokenizer call."""
    call = tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length, truncation=True)
    return [int(token) for token in call.input_ids]


ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz ",
    "ABCDEFG HIJ ",
    "éàüñçøßÀÉİıſÅ ΣσςΆЖя",
    "中文字日本語ひらがなカタカナ한국어 漢",
    "😀🏽\u200d👩🚀❤\ufe0f🇫🇷✨",
    "\t\n\r\x0b\x0c\x1c\x85\u00a0\u2003\u200b\u2028\u3000\ufeff\x00\ufffd ",
    "0123456789²½Ⅷ٣",
    "'s't're've'm'll'd''\u2019",
    '!!!??.,;:-_{}<>|/@#$%^&*~`"=+',
    "e\u0301o\u0308a\u030an\u0303क्षก็العربيةעִברית",
    "\uf900\U0002f800\U00020000",
]
PHRASES = [
    "a photo of ",
    "masterpiece, ",
    "woman's ",
    "<|endoftext|>",
    "<|startoftext|>",
    "!",
    " in the style of Monet ",
]


def random_prompt(source: random.Random) -> str:
    parts = []
    for _ in range(source.randint(0, 10)):
        alphabet = source.choice(ALPHABETS)
        parts.append(
            source.choice(PHRASES)
            if source.random() < 0.2
            else "".join(source.choices(alphabet, k=source.randint(1, 6)))
        )
    return "".join(parts)


def test_ids_equal_transformers_on_random_prompts(ours: PromptTokenizer, theirs: CLIPTokenizer) -> None:
    source = random.Random(20)
    for _ in range(2000):
        text = random_prompt(source)
        assert ours.token_ids(text) == theirs(text, verbose=False).input_ids[1:-1], ascii(text)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u0345"), max_size=60))
def test_ids_equal_transformers_on_any_unicode(
    ours: PromptTokenizer, theirs: CLIPTokenizer, text: str
) -> None:
    assert ours.token_ids(text) == theirs(text, verbose=False).input_ids[1:-1]


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
    start = time.perf_counter()
    with pytest.raises(InvalidRequest, match="characters"):
        encode_prompt(unit * 5_000_000, OURS["tokenizer"], max_chunks=3)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("unit", ["a ", "(", "(a", "a,", "\\(", "(a:1.1)", "x", "(a)((a)(", ":1"])
def test_the_longest_accepted_text_is_handled_in_no_time(unit: str) -> None:
    start = time.perf_counter()
    with pytest.raises(InvalidRequest, match=r"tokens in|weight"):
        encode_prompt((unit * 15_000)[: 3 * 75 * 64], OURS["tokenizer"], max_chunks=3)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("damage", ["missing", "no vocabulary", "no merges", "unknown padding"])
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "tokenizer"
    if damage != "missing":
        shutil.copytree(MODEL / "tokenizer", folder)
    if damage == "no vocabulary":
        (folder / "vocab.json").write_text('{"a": 0')
    if damage == "no merges":
        (folder / "merges.txt").write_text("#version: 0.2\nhouse\n")
    if damage == "unknown padding":
        (folder / "special_tokens_map.json").write_text('{"pad_token": "<pad>"}')
    with pytest.raises(ConfigError, match="not a CLIP tokenizer folder"):
        PromptTokenizer.from_folder(folder)


def test_special_tokens_may_be_written_as_objects(tmp_path: Path) -> None:
    """As in the tokenizer_config.json files on the hub."""
    folder = tmp_path / "tokenizer"
    shutil.copytree(MODEL / "tokenizer", folder)
    (folder / "special_tokens_map.json").write_text('{"pad_token": {"content": "!", "normalized": false}}')
    assert PromptTokenizer.from_folder(folder).pad_id == 0


@pytest.mark.parametrize("text", ["(a" * 7000 + ")" * 400, "[a" * 4800 + "]" * 4800, ":" + "1" * 14_399])
def test_deep_brackets_and_long_numbers_take_no_square_time(text: str) -> None:
    start = time.perf_counter()
    parse_weights(text)
    assert time.perf_counter() - start < 0.5
