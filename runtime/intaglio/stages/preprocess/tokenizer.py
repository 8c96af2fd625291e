"""CLIP's byte-pair encoding, from the files of a diffusers `tokenizer` folder.

Token ids equal those of transformers' `CLIPTokenizer`, the class that SDXL's model_index.json names, without
ftfy installed. (`CLIPTokenizerFast` differs from it on CJK text, which it does not split into characters.)
There are two exceptions. `<|endoftext|>` that is not all in lower case is plain text here. U+0345 (a
combining iota) counts as a sign here.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import Regex, Tokenizer, pre_tokenizers  # type: ignore[import-untyped]
from tokenizers.models import BPE  # type: ignore[import-untyped]

from intaglio.errors import ConfigError
from intaglio.stages.vocabulary import Vocabulary, read_vocabulary

__all__ = ["CHUNK_TOKENS", "CONTEXT", "PromptTokenizer"]

CONTEXT: Final = 77
"""Positions of SDXL's two CLIP text encoders."""


CHUNK_TOKENS: Final = CONTEXT - 2
"""Prompt tokens in a chunk: all but start and end."""


CLIP_PIECES: Final = r"'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
"""The pieces that CLIP encodes: contractions, words, single digits, runs of signs.

The long s is in the first because CLIP ignores case.
"""


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
        """Read vocab.json and merges.txt, or tokenizer.json where they are missing.

        tokenizer_config.json and special_tokens_map.json name the special tokens that are not CLIP's own.

        Raises:
            ConfigError: a file is missing or damaged, or a special token is not in the vocabulary.
        """
        try:
            vocabulary = read_vocabulary(folder)
            ids = vocabulary.ids
            special = _special_tokens(folder)
            return cls(
                pad_id=ids[special["pad_token"]],
                start_id=ids[special["bos_token"]],
                end_id=ids[special["eos_token"]],
                comma_id=ids[",</w>"],
                _special_ids={token: ids[token] for token in special.values()},
                _encoder=_clip_encoder(vocabulary, special["unk_token"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{folder} is not a CLIP tokenizer folder of vocab.json and merges.txt (or tokenizer.json): "
                f"{error!r}"
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


def _normalized(text: str) -> str:
    """`text` as transformers' BasicTokenizer gives it to CLIP.

    It has no control, format and unassigned characters; every CJK ideograph is a word of its own; it is NFC
    and in lower case.
    """
    kept = "".join(filter(_is_kept, text))
    return unicodedata.normalize("NFC", _IDEOGRAPH.sub(r" \g<0> ", kept)).lower()


_IDEOGRAPH: Final = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df"
    "\U0002a700-\U0002b81f\U0002b820-\U0002ceaf\U0002f800-\U0002fa1f]"
)


def _clip_encoder(vocabulary: Vocabulary, unknown: str) -> Tokenizer:
    """CLIP's byte-pair encoding of normalized text, in the tokenizers library."""
    model = BPE(vocab=vocabulary.ids, merges=vocabulary.merges, end_of_word_suffix="</w>", unk_token=unknown)
    encoder = Tokenizer(model)
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


def _is_kept(character: str) -> bool:
    if character in "\t\n\r":
        return True
    return character != "\ufffd" and unicodedata.category(character)[0] != "C"
