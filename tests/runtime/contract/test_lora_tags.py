r"""Tags leave the words of a prompt; `\<lora:` are words."""

from __future__ import annotations

import pytest

from intaglio.contract.lora_tags import LoraTag, split_lora_tags
from intaglio.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "words", "tags"),
    [
        ("a fox", "a fox", []),
        ("a fox <lora:night:0.8>", "a fox ", [LoraTag("night", 0.8)]),
        ("<lora:night> a <LoRA: mara : -1 >fox", " a fox", [LoraTag("night", None), LoraTag("mara", -1.0)]),
        ("a <lyco:night:.5> fox", "a  fox", [LoraTag("night", 0.5)]),
        (r"a \<lora:night:0.8> fox", "a <lora:night:0.8> fox", []),
        (r"a \<lora: fox", "a <lora: fox", []),
        (r"a \\<lora:night:1> fox", r"a \\ fox", [LoraTag("night", 1.0)]),
        (r"a \< lora :night> fox", "a < lora :night> fox", []),
        (r"a <lo\<lora:a:1>ra:b:4>", "a <lo<lora:a:1>ra:b:4>", []),
        (r"a \<lora:a:1>lora:b <lora:night>", "a <lora:a:1>lora:b ", [LoraTag("night", None)]),
        ("1 < 2, <3, <b>bold</b>, lora:night:0.8", "1 < 2, <3, <b>bold</b>, lora:night:0.8", []),
    ],
)
def test_words_and_tags(text: str, words: str, tags: list[LoraTag]) -> None:
    found = split_lora_tags(text)
    assert (found.words, list(found.tags)) == (words, tags)
    again = split_lora_tags(found.untagged)
    assert (again.words, again.tags) == (words, ())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a <lora:night:0.8 fox", "is not closed"),
        ("a <lora:night<lora:night>", "is not closed"),
        ("a <lora:>", "names no LoRA"),
        ("a <lora:night:much>", "'much' is not a number; allowed: a weight of -4 to 4"),
        ("a <lora:night:nan>", "nan is out of range"),
        ("a <lora:night:1e9>", "1e9 is out of range"),
        ("a <lora:night:0.8:0.5>", "has 2 weights"),
        ("a <lo<lora:a:1>ra:evil:4>", "'<lora:evil:4>' appears once other tags are taken out"),
        (r"a \<lo<lora:a:1>ra:evil:4>", "'<lora:evil:4>' appears once other tags are taken out"),
        ("a <<lora:a:1>lora:evil", "'<lora:evil' appears once other tags are taken out"),
        ("a <lora :night>", "'<lora :night>' has white space beside 'lora'"),
        ("a < LoRA:night>", "'< LoRA:night>' has white space beside 'LoRA'"),
        ("a <hypernet:night:0.8>", "hypernetworks are not supported"),
    ],
)
def test_what_is_no_tag_is_refused_and_never_encoded(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^prompt: .*{says}"):
        split_lora_tags(text)


def test_words_stay_the_same_without_the_tags_between_them() -> None:
    """A backslash before `<` belongs to what follows, also where a tag was taken out in front of it."""
    found = split_lora_tags(r"\<lora:<lora:night> a \<lora:mara>")
    assert [tag.id for tag in found.tags] == ["night"]
    assert found.untagged == r"\<lora: a \<lora:mara>"
    again = split_lora_tags(found.untagged)
    assert (again.words, again.tags) == (found.words, ())


def test_long_text_takes_time_in_proportion() -> None:
    assert split_lora_tags("\\" * 100_001 + "<" * 100_000).tags == ()
    assert split_lora_tags("<" + " " * 100_000 + "< lora" * 100_000).tags == ()
