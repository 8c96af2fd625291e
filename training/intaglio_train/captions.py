"""What counts as a caption: text that a tokenizer makes tokens of, in one alternative or several."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from intaglio_train.errors import DataError

__all__ = ["alternatives_of", "lines_of"]

_LINE_END = re.compile(r"\r\n|\n|\r")


def lines_of(text: str) -> list[str]:
    """Lines of `text`, which LF, CR LF or CR end. Other separators (U+2028, U+0085) are characters."""
    return _LINE_END.split(text)


def alternatives_of(texts: Sequence[Any], where: str) -> tuple[str, ...]:
    """The texts that say something, without the white space around them.

    Args:
        texts: alternative captions of one image; empty ones are left out.
        where: the file, and its row if it has rows, for messages.

    Raises:
        DataError: one is no Unicode text, or none says anything.
    """
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"{where}: its caption is {text!r}; a caption is text, or a list of texts")
        if any(unicodedata.category(character) == "Cs" for character in text):
            raise DataError(f"{where}: its caption holds half of a surrogate pair; write valid Unicode text")
    kept = tuple(text.strip() for text in texts if _says_something(text))
    if not kept:
        raise DataError(f"{where}: empty caption; write what the image shows, one alternative a line")
    return kept


def _says_something(text: str) -> bool:
    """Whether a sign is left once CLIP's tokenizer has dropped white space, control and format characters."""
    return any(not _is_dropped(character) for character in text)


def _is_dropped(character: str) -> bool:
    return character.isspace() or character == "\ufffd" or unicodedata.category(character).startswith("C")
