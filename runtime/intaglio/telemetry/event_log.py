"""The one writer of the server's own log lines: one line an event, as JSON or as text.

A line is at most `LONGEST_LINE` bytes, which a pipe takes whole: lines of several processes never mix. What
a caller chooses, such as the id of a request, is escaped and cut, so that it can neither begin a line of its
own nor fill the log.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

__all__ = ["LONGEST_LINE", "EventLog", "Level", "LogFormat", "line_of", "now_text"]

Level = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]

LONGEST_LINE: Final = 4096
"""Bytes, with the newline; PIPE_BUF of Linux."""
_LEVELS: Final = get_args(Level)
_STANDARD_ERROR: Final = 2


def _to_standard_error(line: bytes) -> None:
    with contextlib.suppress(OSError):  # a log that nobody reads or stores fails no request
        os.write(_STANDARD_ERROR, line)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """Writes the lines of one model instance; any thread may call it."""

    stage: str = ""
    instance: str = ""
    format: LogFormat = "text"
    least: Level = "info"
    """Events below this level are left out."""
    write: Callable[[bytes], object] = _to_standard_error

    def __call__(self, level: Level, event: str, **fields: Any) -> None:
        """Write `event`. A field that is None or empty is left out; a `traceback` is cut at its beginning."""
        if _LEVELS.index(level) < _LEVELS.index(self.least):
            return
        first = {"time": now_text(), "level": level, "stage": self.stage, "instance": self.instance}
        said = {**first, "event": event, **fields}
        told = {name: value for name, value in said.items() if value not in (None, "", {})}
        self.write(line_of(told, format=self.format))


def now_text() -> str:
    """The time in UTC, to the millisecond: `2026-11-30T09:24:42.123Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def line_of(fields: Mapping[str, Any], *, format: LogFormat = "json") -> bytes:
    """`fields` as a line with its newline. The longest texts are cut until it is short enough."""
    encode = _json_line if format == "json" else _text_line
    cut = dict(fields)
    while len(line := encode(cut)) > LONGEST_LINE:
        texts = [name for name, value in cut.items() if isinstance(value, str) and value]
        if not texts:
            break
        longest = max(texts, key=lambda name: len(cut[name]))
        cut[longest] = _half(cut[longest], at_end=longest == "traceback")
    return line


def _half(text: str, *, at_end: bool) -> str:
    """Half of `text`, which most tells."""
    half = max(min(len(text) // 2, LONGEST_LINE), 1)
    if len(text) <= 2:
        return ""
    return f"…{text[-half + 1 :]}" if at_end else f"{text[: half - 1]}…"


def _json_line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), default=str).encode() + b"\n"


def _text_line(fields: Mapping[str, Any]) -> bytes:
    """`TIME LEVEL INSTANCE EVENT name=value ...`; lines of a traceback follow, each after two spaces."""
    given = dict(fields)
    first = [str(given.pop("time")), str(given.pop("level")).upper()]
    stage, instance = given.pop("stage", ""), given.pop("instance", "")
    first += [str(instance or stage), str(given.pop("event"))]
    below = str(given.pop("traceback", "")).splitlines()
    named = [f"{name}={_text_value(value)}" for name, value in given.items()]
    return "\n".join([" ".join([*first, *named]), *map(_indented, below)]).encode() + b"\n"


def _indented(line: str) -> str:
    return "  " + "".join(one if one.isprintable() else " " for one in line)


def _text_value(value: Any) -> str:
    """`value` without a space, a newline or anything else that could be taken for another field."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}:{one}" for name, one in value.items())
    text = str(value)
    plain = text.isascii() and text.isprintable() and not set(text) & set(' "=')
    return text if plain else json.dumps(text)
