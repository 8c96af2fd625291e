"""Prompt text -> CLIP token ids and a weight for each token.

Axes: `k` chunks of 77 tokens. A chunk has a start, up to 75 tokens of the prompt, an end, and padding.

Token ids equal those of transformers' `CLIPTokenizer`, the class that SDXL's model_index.json names, without
ftfy installed. (`CLIPTokenizerFast` differs from it on CJK text, which it does not split into characters.)
There are two exceptions. `<|endoftext|>` that is not all in lower case is plain text here. U+0345 (a
combining iota) counts as a sign here.

Weighting follows AUTOMATIC1111's stable-diffusion-webui (modules/prompt_parser.py, wiki
"Attention/emphasis"):

    (word)       times 1.1          (word:1.3)   times 1.3
    [word]       divided by 1.1     \\( \\) \\[ \\]  brackets as text
    BREAK        starts a new chunk

Brackets nest, and their factors multiply. A bracket without a partner is text, so `:(` stays as it is.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, pre_tokenizers  # type: ignore[import-untyped]
from tokenizers.models import BPE  # type: ignore[import-untyped]

from intaglio.errors import ConfigError, InvalidRequest
from intaglio.request.limits import TOKEN_WEIGHTS

__all__ = [
    "CHUNK_TOKENS",
    "CONTEXT",
    "PromptTokenizer",
    "TokenChunks",
    "WeightedText",
    "align_chunks",
    "encode_prompt",
    "parse_weights",
]

CONTEXT: Final = 77
"""Positions of SDXL's two CLIP text encoders."""
CHUNK_TOKENS: Final = CONTEXT - 2
"""Prompt tokens in a chunk: all but start and end."""
COMMA_REACH: Final = 20
"""A chunk that overflows ends at its last comma, if that is among its last 20 tokens.

It is webui's `comma_padding_backtrack`.
"""
CHARACTERS_PER_TOKEN: Final = 64
"""Longer text is refused before it is tokenized.

CLIP's longest token has 36 characters; tokens of prompts have about 5.
"""

CLIP_MERGES: Final = 49152 - 256 - 2
"""Merges that CLIP uses of its merges.txt: vocabulary less bytes less special tokens."""
CLIP_PIECES: Final = r"'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
"""The pieces that CLIP encodes: contractions, words, single digits, runs of signs.

The long s is in the first because CLIP ignores case.
"""


@dataclass(frozen=True, slots=True)
class TokenChunks:
    """A prompt's tokens."""

    ids: NDArray[np.int64]
    """[k, 77]."""
    weights: NDArray[np.float32]
    """[k, 77]; 1 for start, end, padding and text without brackets."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class WeightedText:
    """A piece of prompt and how much it counts."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class PromptTokenizer:
    """CLIP's byte-pair encoding, from a diffusers `tokenizer` folder."""

    pad_id: int
    start_id: int
    end_id: int
    comma_id: int
    _special_ids: Mapping[str, int]
    _encoder: Tokenizer

    @classmethod
    def from_folder(cls, folder: Path) -> PromptTokenizer:
        """Read vocab.json and merges.txt.

        tokenizer_config.json and special_tokens_map.json name the special tokens that are not CLIP's own.

        Raises:
            ConfigError: a file is missing or damaged, or a special token is not in the vocabulary.
        """
        try:
            vocabulary: dict[str, int] = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            lines = (folder / "merges.txt").read_text(encoding="utf-8").strip().split("\n")
            special = _special_tokens(folder)
            merges = [_merge(line) for line in lines[1 : CLIP_MERGES + 2]]
            encoder = _clip_encoder(vocabulary, merges, special["unk_token"])
            return cls(
                pad_id=vocabulary[special["pad_token"]],
                start_id=vocabulary[special["bos_token"]],
                end_id=vocabulary[special["eos_token"]],
                comma_id=vocabulary[",</w>"],
                _special_ids={token: vocabulary[token] for token in special.values()},
                _encoder=encoder,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{folder} is not a CLIP tokenizer folder of vocab.json and merges.txt: {error!r}"
            ) from error

    def token_ids(self, text: str) -> list[int]:
        """Ids of the text alone: no start, no end, no padding, any length.

        Special tokens spelt out in the text become their ids, as in transformers. One of them is "!", which
        is the padding of SDXL's second tokenizer.
        """
        ids: list[int] = []
        special = "|".join(map(re.escape, self._special_ids))
        for piece in re.split(f"({special})", text):
            if piece in self._special_ids:
                ids.append(self._special_ids[piece])
            else:
                ids.extend(self._encoder.encode(_normalized(piece), add_special_tokens=False).ids)
        return ids

    def framed(self, ids: Sequence[int]) -> list[int]:
        """[77] start, ids (at most 75), end, padding."""
        return [self.start_id, *ids, self.end_id, *[self.pad_id] * (CHUNK_TOKENS - len(ids))]


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
    low, high = TOKEN_WEIGHTS
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


def parse_weights(text: str) -> list[WeightedText]:
    """Text without its brackets, in pieces of one weight each; nested weights are multiplied."""
    frames: list[tuple[str, list[WeightedText]]] = [("", [])]
    position = 0
    for mark in _MARKS.finditer(text):
        _append(frames[-1][1], text[position : mark.start()])
        position = mark.end()
        sign = mark[0]
        if sign in _OPENING:
            frames.append((sign, []))
        elif sign[0] != "\\" and frames[-1][0] == _PARTNER[sign[-1]]:
            _, inside = frames.pop()
            factor = float(mark["weight"]) if mark["weight"] else _FACTOR[sign]
            frames[-1][1].extend(WeightedText(piece.text, piece.weight * factor) for piece in inside)
        else:
            _append(frames[-1][1], sign.removeprefix("\\"))
    _append(frames[-1][1], text[position:])
    while len(frames) > 1:
        bracket, inside = frames.pop()
        for piece in (WeightedText(bracket), *inside):
            _append(frames[-1][1], piece.text, piece.weight)
    return frames[0][1]


_MARKS: Final = re.compile(r"\\[\\()\[\]]|[(\[\])]|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)")
_OPENING: Final = ("(", "[")
_PARTNER: Final[Mapping[str, str]] = {")": "(", "]": "["}
_FACTOR: Final[Mapping[str, float]] = {")": 1.1, "]": 1 / 1.1}
_BREAK: Final = re.compile(r"\bBREAK\b")


def _append(pieces: list[WeightedText], text: str, weight: float = 1.0) -> None:
    """Add a piece. Plain text joins plain text, so that a word with a lone bracket is tokenized whole."""
    if pieces and pieces[-1].weight == weight == 1.0:
        pieces[-1] = WeightedText(pieces[-1].text + text)
    elif text:
        pieces.append(WeightedText(text, weight))


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


def _normalized(text: str) -> str:
    """`text` as transformers' BasicTokenizer gives it to CLIP.

    It has no control, format and unassigned characters; every CJK ideograph is a word of its own; it is NFC
    and in lower case.
    """
    kept = "".join(filter(_is_kept, text))
    return unicodedata.normalize("NFC", _IDEOGRAPH.sub(r" \g<0> ", kept)).lower()


def _is_kept(character: str) -> bool:
    if character in "\t\n\r":
        return True
    return character != "\ufffd" and unicodedata.category(character)[0] != "C"


_IDEOGRAPH: Final = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df"
    "\U0002a700-\U0002b81f\U0002b820-\U0002ceaf\U0002f800-\U0002fa1f]"
)


def _clip_encoder(vocabulary: dict[str, int], merges: list[tuple[str, str]], unknown: str) -> Tokenizer:
    """CLIP's byte-pair encoding of normalized text, in the tokenizers library."""
    encoder = Tokenizer(BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token=unknown))
    pieces = pre_tokenizers.Split(Regex(CLIP_PIECES), behavior="removed", invert=True)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    encoder.pre_tokenizer = pre_tokenizers.Sequence([pieces, as_bytes])
    return encoder


def _special_tokens(folder: Path) -> dict[str, str]:
    """Special tokens by role: CLIP's own unless a file says otherwise."""
    tokens = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if not path.exists():
            continue
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for role in tokens.keys() & found.keys():
            tokens[role] = found[role]["content"] if isinstance(found[role], dict) else found[role]
    return tokens


def _merge(line: str) -> tuple[str, str]:
    left, right = line.split()
    return left, right
