"""Captions -> CLIP tokens in chunks of 75, as serving makes them of prompts.

`T` = 77 positions: start, up to 75 tokens, end, padding. `U` texts, `R` different chunks, `K` chunks of the
longest text. A chunk that overflows ends at its last comma, if that is among its last 20 tokens
(AUTOMATIC1111's comma_padding_backtrack). Captions are plain text: brackets weigh nothing, and BREAK is a
word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

__all__ = ["CHUNK_POSITIONS", "CHUNK_TOKENS", "MOST_CHUNKS", "ChunkedTexts", "chunk_texts", "split_at_commas"]

CHUNK_TOKENS: Final = 75
CHUNK_POSITIONS: Final = CHUNK_TOKENS + 2
"""T: with start and end."""
COMMA_REACH: Final = 20
MOST_CHUNKS: Final = 8
"""As many as a deployment may have (`profiles.text_chunks`)."""

Chunk = tuple[tuple[int, ...], ...]
"""Token ids [2,T] of one chunk."""


@dataclass(frozen=True)
class ChunkedTexts:
    """Every different chunk once, and the chunks of each text. Row 0 of `tokens` is the empty chunk."""

    tokens: torch.Tensor  # [2,R,T] int64, of both tokenizers
    rows: torch.Tensor  # [U,K] int64, rows of `tokens`; 0 after a text's own chunks
    counts: tuple[int, ...]  # [U], chunks of each text, at least 1


def chunk_texts(tokenizers: Sequence[Any], texts: Sequence[str]) -> ChunkedTexts:
    """Token ids of `texts` by transformers' CLIP tokenizers. A text of any length is chunked."""
    empty: Chunk = tuple(_framed(tokenizer, []) for tokenizer in tokenizers)
    numbers: dict[Chunk, int] = {empty: 0}
    rows = []
    for text in texts:
        chunks = _chunks_of(tokenizers, text)
        rows.append([numbers.setdefault(chunk, len(numbers)) for chunk in chunks])
    longest = max(len(row) for row in rows)
    filled = [row + [0] * (longest - len(row)) for row in rows]
    tokens = torch.tensor(list(numbers)).transpose(0, 1).contiguous()
    return ChunkedTexts(tokens, torch.tensor(filled), tuple(len(row) for row in rows))


def _chunks_of(tokenizers: Sequence[Any], text: str) -> list[Chunk]:
    """At least one. The two tokenizers share their vocabulary but for the padding."""
    split = []
    for tokenizer in tokenizers:
        ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        split.append(split_at_commas(ids, tokenizer.convert_tokens_to_ids(",</w>")) or [[]])
    count = max(len(chunks) for chunks in split)
    framed = []
    for tokenizer, chunks in zip(tokenizers, split, strict=True):
        filled = chunks + [[]] * (count - len(chunks))
        framed.append([_framed(tokenizer, chunk) for chunk in filled])
    return list(zip(*framed, strict=True))


def _framed(tokenizer: Any, ids: list[int]) -> tuple[int, ...]:
    padding = [tokenizer.pad_token_id] * (CHUNK_TOKENS - len(ids))
    return (tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *padding)


def split_at_commas(ids: list[int], comma: int) -> list[list[int]]:
    """Chunks of at most 75 tokens; none for no tokens."""
    chunks = []
    start = 0
    while start < len(ids):
        end = min(start + CHUNK_TOKENS, len(ids))
        if len(ids) - start > CHUNK_TOKENS:
            reach = range(end - COMMA_REACH, end)
            end = max((position + 1 for position in reach if ids[position] == comma), default=end)
        chunks.append(ids[start:end])
        start = end
    return chunks
