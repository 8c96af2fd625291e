"""The lines of Triton and its processes as JSON: those that are JSON already, and all others in an object."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, Final

from intaglio.telemetry.event_log import line_of, now_text

__all__ = ["json_lines"]

_OURS: Final = b'{"time":"'
_TRITON: Final = re.compile(
    r"(?P<level>[IWEFV])(?P<month>\d\d)(?P<day>\d\d) (?P<time>\d\d:\d\d:\d\d\.\d{3})\d* \d+ "
    r"(?P<source>[^ \]]+)\] (?P<message>.*)"
)
"""Triton's own format: first letter of the level, month and day, time in UTC, process, file and line."""
_LEVELS: Final = {"I": "info", "V": "debug", "W": "warning", "E": "error", "F": "error"}


def json_lines(lines: bytes) -> bytes:
    """Whole `lines`, each as one JSON object."""
    return b"".join(map(_json_line, lines.splitlines(keepends=True)))


def _json_line(line: bytes) -> bytes:
    if line.startswith(_OURS) and _is_object(line):
        return line
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    triton = _TRITON.fullmatch(text)
    if triton is not None:
        return line_of(_fields(triton))
    level = "error" if text.startswith("error:") else "info"
    return line_of(
        {"time": now_text(), "level": level, "stage": "triton", "event": "output", "message": text}
    )


def _fields(found: re.Match[str]) -> dict[str, Any]:
    now = datetime.now(UTC)
    # Triton names no year. A line of the last night of a year may be read in the next one.
    year = now.year - (int(found["month"]) > now.month)
    return {
        "time": f"{year}-{found['month']}-{found['day']}T{found['time']}Z",
        "level": _LEVELS[found["level"]],
        "stage": "triton",
        "event": "log",
        "source": found["source"],
        "message": _unquoted(found["message"]),
    }


def _unquoted(message: str) -> str:
    """Triton quotes what it logs as a JSON string."""
    if message.startswith('"'):
        try:
            return str(json.loads(message))
        except ValueError:
            pass
    return message


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
