"""Captions are chunked as serving chunks prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from intaglio.contract.config import Profiles
from intaglio.stages.preprocess.prompt import align_chunks, encode_prompt
from intaglio.stages.preprocess.tokenizer import PromptTokenizer
from intaglio_train.text_chunks import CHUNK_TOKENS, MOST_CHUNKS, chunk_texts, split_at_commas

MODEL = Path(__file__).parents[2] / "miniature" / "model"
FOLDERS = [MODEL / "tokenizer", MODEL / "tokenizer_2"]
COMMA = 267
WORDS = st.sampled_from(["a", "red", "woman", ",", ", ", "dancer.", "狐", "sunlit", "1girl", "\u2028"])


@pytest.fixture(scope="module")
def served() -> list[PromptTokenizer]:
    return [PromptTokenizer.from_folder(folder) for folder in FOLDERS]


@pytest.fixture(scope="module")
def tokenizers() -> list[CLIPTokenizer]:
    return [CLIPTokenizer.from_pretrained(str(folder)) for folder in FOLDERS]


@given(texts=st.lists(st.lists(WORDS, max_size=260).map(" ".join), min_size=1, max_size=3))
@settings(deadline=None)
def test_chunks_are_those_of_serving(
    tokenizers: list[CLIPTokenizer], served: list[PromptTokenizer], texts: list[str]
) -> None:
    found = chunk_texts(tokenizers, texts)
    for index, theirs in enumerate(served):
        encoded = [(encode_prompt(text, theirs, max_chunks=MOST_CHUNKS), theirs) for text in texts]
        for row, expected in zip(found.rows, align_chunks(encoded), strict=True):
            assert found.tokens[index, row].tolist() == expected.ids.tolist()
    assert found.counts == tuple(len(chunks) for chunks, _ in encoded)


def test_short_texts_are_one_chunk_as_the_pipeline_pads_them(tokenizers: list[CLIPTokenizer]) -> None:
    texts = ["a thing", "", "a thing"]
    found = chunk_texts(tokenizers, texts)
    assert found.counts == (1, 1, 1)
    assert found.rows.tolist() == [[1], [0], [1]]
    for index, tokenizer in enumerate(tokenizers):
        padded = tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
        assert torch.equal(found.tokens[index, found.rows[:, 0]], padded)


def test_a_long_caption_loses_nothing(tokenizers: list[CLIPTokenizer]) -> None:
    tags = [f"tag {number}" for number in range(80)]
    found = chunk_texts(tokenizers, [", ".join(tags)])
    ids = [token for row in found.rows[0] for token in found.tokens[0, row].tolist() if token < 49406]
    assert ids == tokenizers[0](", ".join(tags), add_special_tokens=False).input_ids
    assert found.counts[0] > 1


@given(st.lists(st.sampled_from([COMMA, 1]), max_size=400))
def test_chunks_join_to_the_ids_and_are_as_long_as_they_may_be(ids: list[int]) -> None:
    chunks = split_at_commas(ids, COMMA)
    assert [token for chunk in chunks for token in chunk] == ids
    for chunk in chunks[:-1]:
        assert CHUNK_TOKENS - 20 < len(chunk) <= CHUNK_TOKENS
        assert len(chunk) == CHUNK_TOKENS or chunk[-1] == COMMA


def test_a_deployment_may_have_as_many_chunks() -> None:
    assert Profiles.model_json_schema()["properties"]["text_chunks"]["maximum"] == MOST_CHUNKS
