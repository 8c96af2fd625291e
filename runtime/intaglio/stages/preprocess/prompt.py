"""Prompt text -> CLIP token ids and a weight for each token, in chunks.

Axes: `k` chunks of 77 tokens. A chunk has a start, up to 75 tokens of the prompt, an end, and padding. BREAK
starts a new chunk. `weights` reads the brackets, `tokenizer` encodes the text between them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import InvalidRequest
from intaglio.stages.preprocess.tokenizer import CHUNK_TOKENS, CONTEXT, PromptTokenizer
from intaglio.stages.preprocess.weights import WeightedText, parse_weights

__all__ = ["TokenChunks", "align_chunks", "encode_prompt"]

COMMA_REACH: Final = 20
"""A chunk that overflows ends at its last comma, if that is among its last 20 tokens.

It is webui's `comma_padding_backtrack`.
"""
CHARACTERS_PER_TOKEN: Final = 64
"""Longer text is refused before it is tokenized.

CLIP's longest token has 36 characters; tokens of prompts have about 5.
"""
WEIGHT_RANGE: Final = (-10.0, 10.0)


@dataclass(frozen=True, slots=True)
class TokenChunks:
    """A prompt's tokens."""

    ids: NDArray[np.int64]
    """[k, 77]."""
    weights: NDArray[np.float32]
    """[k, 77]; 1 for start, end, padding and text without brackets."""

    def __len__(self) -> int:
        return len(self.ids)


def encode_prompt(
    text: str, tokenizer: PromptTokenizer, *, max_chunks: int, field: str = "prompt"
) -> TokenChunks:
    """Tokens and weights of a prompt; the empty prompt is one chunk.

    For up to 75 tokens without brackets and `BREAK`, the ids are those that diffusers' pipeline gives its
    encoders.

    Raises:
        InvalidRequest: `field` has more chunks than `max_chunks`, a weight outside -10 to 10, or invalid
            Unicode.
    """
    _check_text(text, max_chunks, field)
    sections = [_weighted_ids(section, tokenizer) for section in _sections(parse_weights(text))]
    chunks: list[list[tuple[int, float]]] = []
    for section in sections:
        _check_weights(section, field)
        chunks += _split_at_commas(section, tokenizer.comma_id)
    chunks = chunks or [[]]
    if len(chunks) > max_chunks:
        tokens = sum(len(section) for section in sections)
        allowed = f"{max_chunks * CHUNK_TOKENS} tokens in {max_chunks} chunks of {CHUNK_TOKENS}"
        raise InvalidRequest(field, f"{tokens} tokens in {len(chunks)} chunks", allowed=allowed)
    weights = np.ones((len(chunks), CONTEXT), dtype=np.float32)
    for row, chunk in zip(weights, chunks, strict=True):
        row[1 : 1 + len(chunk)] = [weight for _, weight in chunk]
    ids = [tokenizer.framed([token for token, _ in chunk]) for chunk in chunks]
    return TokenChunks(np.array(ids, dtype=np.int64), weights)


def _check_weights(tokens: Sequence[tuple[int, float]], field: str) -> None:
    low, high = WEIGHT_RANGE
    for _, weight in tokens:
        if not low <= weight <= high:
            allowed = f"{low:g} to {high:g}, nested brackets multiplied"
            raise InvalidRequest(field, f"a weight of {weight:g}", allowed=allowed)


def align_chunks(encoded: Sequence[tuple[TokenChunks, PromptTokenizer]]) -> list[TokenChunks]:
    """The same prompts, filled up with empty chunks until all have as many as the longest.

    A prompt and its negative share one batch, and SDXL joins the features of its two encoders position by
    position. Each prompt comes with the tokenizer that encoded it, because the two pad differently.
    """
    longest = max(len(chunks) for chunks, _ in encoded)
    return [_filled_up(chunks, tokenizer, longest) for chunks, tokenizer in encoded]


_BREAK: Final = re.compile(r"\bBREAK\b")


def _sections(pieces: Sequence[WeightedText]) -> list[list[WeightedText]]:
    """Pieces between one BREAK and the next."""
    sections: list[list[WeightedText]] = [[]]
    for piece in pieces:
        first, *others = _BREAK.split(piece.text)
        sections[-1].append(WeightedText(first, piece.weight))
        sections.extend([WeightedText(other, piece.weight)] for other in others)
    return sections


def _weighted_ids(pieces: Sequence[WeightedText], tokenizer: PromptTokenizer) -> list[tuple[int, float]]:
    weighted: list[tuple[int, float]] = []
    for piece in pieces:
        weighted += [(token, piece.weight) for token in tokenizer.token_ids(piece.text)]
    return weighted


def _split_at_commas(tokens: list[tuple[int, float]], comma_id: int) -> list[list[tuple[int, float]]]:
    """Chunks of at most 75 tokens; none for no tokens."""
    reach = range(CHUNK_TOKENS - COMMA_REACH, CHUNK_TOKENS)
    chunks = []
    while tokens:
        end = len(tokens)
        if end > CHUNK_TOKENS:
            after_commas = [place + 1 for place in reach if tokens[place][0] == comma_id]
            end = max(after_commas, default=CHUNK_TOKENS)
        chunks.append(tokens[:end])
        tokens = tokens[end:]
    return chunks


def _filled_up(chunks: TokenChunks, tokenizer: PromptTokenizer, count: int) -> TokenChunks:
    missing = count - len(chunks)
    ids = np.array([tokenizer.framed([])] * missing, dtype=np.int64).reshape(missing, CONTEXT)
    return TokenChunks(
        np.concatenate([chunks.ids, ids]),
        np.concatenate([chunks.weights, np.ones((missing, CONTEXT), dtype=np.float32)]),
    )


def _check_text(text: str, max_chunks: int, field: str) -> None:
    longest = max_chunks * CHUNK_TOKENS * CHARACTERS_PER_TOKEN
    if len(text) > longest:
        raise InvalidRequest(
            field,
            f"{len(text)} characters",
            allowed=f"{longest} characters, {max_chunks * CHUNK_TOKENS} tokens",
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidRequest(field, "half of a surrogate pair", allowed="valid Unicode text")
