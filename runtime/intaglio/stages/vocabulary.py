"""The vocabulary of a CLIP tokenizer.

It is in vocab.json and merges.txt, or in tokenizer.json, which transformers 5 writes instead of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["Vocabulary", "read_vocabulary"]

_MERGES: Final = 49152 - 256 - 2
"""Merges that CLIP uses of its merges.txt: vocabulary less bytes less special tokens."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What byte-pair encoding needs."""

    ids: dict[str, int]
    """Id of each token."""
    merges: list[tuple[str, str]]
    """Pairs that become one token, the first of them first."""

    @property
    def size(self) -> int:
        """One more than the highest id."""
        return max(self.ids.values()) + 1


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of the tokenizer in `folder`.

    Raises:
        OSError: the folder has neither vocab.json nor tokenizer.json, or a file cannot be read.
        ValueError, KeyError, TypeError, AttributeError: a file is damaged.
    """
    if not (folder / "vocab.json").exists() and (folder / "tokenizer.json").exists():
        model: dict[str, Any] = _read_json(folder / "tokenizer.json")["model"]
        return Vocabulary(model["vocab"], [_pair(merge) for merge in model["merges"]])
    lines = (folder / "merges.txt").read_text(encoding="utf-8").strip().split("\n")
    merges = [_pair(line) for line in lines[1 : _MERGES + 2]]
    return Vocabulary(_read_json(folder / "vocab.json"), merges)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _pair(merge: str | list[str]) -> tuple[str, str]:
    """Both halves of `merge`. Older releases of tokenizers wrote them as one string."""
    left, right = merge.split() if isinstance(merge, str) else merge
    return left, right
