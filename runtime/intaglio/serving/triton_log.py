"""What Triton's log says of one run: what is loaded, why loading failed, the last error."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from typing import Final

from intaglio.errors import single_line

__all__ = ["TritonLog", "load_failure"]

_LOADED: Final = re.compile(r"successfully loaded '([^']+)'")
_FAILED: Final = re.compile(
    r"TritonModelException: (?P<raised>.+)|failed to load '(?P<model>[^']+)' version \d+: (?P<reason>.+)"
)
_ERROR: Final = re.compile(r"E\d{4} |error:|\d{4}-\S+Z ERROR |" + r'\{"time":"[^"]+","level":"error"')
_RECENT_SECONDS: Final = 5.0
"""Age up to which an error may be the reason of an end."""
_FIRST_BYTES: Final = 512 * 1024
_LAST_BYTES: Final = 64 * 1024
"""Kept of a run's output: its beginning, which holds the start, and its end."""


class TritonLog:
    """The output of one run, as its own pipe brings it. No other run can write here."""

    def __init__(self) -> None:
        self._first = bytearray()
        self._last = bytearray()
        self._error: tuple[float, str] | None = None
        self._changing = threading.Lock()

    def add(self, lines: bytes) -> None:
        """Take up whole lines."""
        error = _last_error(lines.decode("utf-8", "replace"))
        with self._changing:
            if error is not None:
                self._error = (time.monotonic(), error)
            if len(self._first) < _FIRST_BYTES:
                self._first += lines
                return
            self._last += lines
            if len(self._last) > 2 * _LAST_BYTES:
                del self._last[:-_LAST_BYTES]

    def loaded(self) -> list[str]:
        """Models that are loaded, in order."""
        return list(dict.fromkeys(_LOADED.findall(self._text())))

    def failure(self) -> str | None:
        """Why loading failed; None where the log does not say."""
        text = self._text()
        return load_failure(text) or _last_error(text)

    def start_is_over(self) -> None:
        """Errors of a start that succeeded are no reason of what comes later."""
        with self._changing:
            self._error = None

    def recent_error(self, *, seconds: float = _RECENT_SECONDS) -> str | None:
        """The last line of an error, where it was written within the last `seconds`."""
        with self._changing:
            if self._error is None or time.monotonic() - self._error[0] > seconds:
                return None
            return self._error[1]

    def _text(self) -> str:
        with self._changing:
            return bytes(self._first + self._last).decode("utf-8", "replace")


def _last_error(text: str) -> str | None:
    for line in reversed(text.splitlines()):
        if _ERROR.match(line):
            return single_line(_message(line))
    return None


def _message(line: str) -> str:
    """What a line of an error says, in Triton's format or one of ours."""
    if line.startswith("{"):
        with contextlib.suppress(ValueError):
            fields = json.loads(line)
            return f"{fields.get('stage')}: {fields.get('message', fields.get('event'))}"
    if " ERROR " in line:
        return line.partition(" ERROR ")[2]
    return (line.partition("] ")[2] or line).strip('"')


def load_failure(text: str) -> str | None:
    """The reason in Triton's words: what the first model raised, otherwise the first model that failed."""
    found = list(_FAILED.finditer(text))
    raised = [match["raised"] for match in found if match["raised"]]
    if raised:
        return single_line(raised[0])
    return single_line(f"{found[0]['model']}: {found[0]['reason']}") if found else None
