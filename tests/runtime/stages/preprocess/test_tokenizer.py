"""Token ids against those of transformers' CLIPTokenizer."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from intaglio.errors import ConfigError
from intaglio.stages.preprocess.tokenizer import PromptTokenizer

from .prompts import MODEL, random_prompt


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
