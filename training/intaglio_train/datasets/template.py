"""A caption's template: a line of text with `{field}`, and `[parts]` that are left out where a field in them
is undefined.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from intaglio_train.captions import lines_of
from intaglio_train.errors import DataError

__all__ = ["Template"]

_PART: Final = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)")
"""An optional part, or the text between two of them."""
_FIELD: Final = re.compile(r"\{([^{}]*)\}")
_BLANKS: Final = re.compile(r"\s+")
_BEFORE_SIGN: Final = re.compile(r" (?=[,.;:!?])")


@dataclass(frozen=True, slots=True)
class Template:
    """The parts of a caption, in order."""

    parts: tuple[tuple[bool, str], ...]
    """Whether a part is optional, and its text."""

    @classmethod
    def read(cls, path: Path, fields: Collection[str]) -> Self:
        """The template in a file. Blank lines and lines that begin with # are comments.

        Raises:
            DataError: the file has no or several lines, a bracket is not closed, or a field is not one of
                `fields`.
        """
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from error
        lines = [line.strip() for line in lines_of(text)]
        kept = [line for line in lines if line and not line.startswith("#")]
        if len(kept) != 1:
            raise DataError(f"{path}: has {len(kept)} lines that are no comments; one is needed, the caption")
        return cls.of(kept[0], fields, where=str(path))

    @classmethod
    def of(cls, line: str, fields: Collection[str], *, where: str) -> Self:
        """The template that `line` is; `where` is for messages. Raises `DataError` as `read` does."""
        if "".join(found[0] for found in _PART.finditer(line)) != line:
            raise DataError(
                f"{where}: a bracket is not closed, or stands in another; write [an optional part]"
            )
        parts = tuple((found[1] is not None, found[1] or found[2] or "") for found in _PART.finditer(line))
        for name in _FIELD.findall(line):
            if name not in fields:
                raise DataError(f"{where}: unknown field {{{name}}}; allowed: {', '.join(fields)}")
        if any(sign in _FIELD.sub("", line) for sign in "{}"):
            raise DataError(f"{where}: a brace is not closed; write {{field}}")
        return cls(parts)

    def caption(self, values: Mapping[str, str]) -> str:
        """The caption. Outside of brackets an undefined field leaves nothing behind, not even a blank."""
        text = ""
        for optional, part in self.parts:
            if not optional or all(name in values for name in _FIELD.findall(part)):
                text += _FIELD.sub(lambda found: values.get(found[1], ""), part)
        return _BEFORE_SIGN.sub("", _BLANKS.sub(" ", text)).strip(" ,;:")
