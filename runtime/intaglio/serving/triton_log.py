"""What Triton's log says of one run: whether it has begun, what is loaded, why loading failed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from intaglio.errors import single_line

__all__ = ["TritonLog", "load_failure"]

_PARSED: Final = re.compile(rb"^[IWE]\d{4} \d\d:", re.MULTILINE)
_LOADED: Final = re.compile(rb"successfully loaded '([^']+)'")
_FAILED: Final = re.compile(
    r"TritonModelException: (?P<raised>.+)|failed to load '(?P<model>[^']+)' version \d+: (?P<reason>.+)"
)
_ERROR: Final = re.compile(r"E\d{4} |error:")
_LIMIT: Final = 16 * 1024 * 1024
"""Bytes from which on a new run begins a new file."""


class TritonLog:
    """One run's part of the log file; what is written from now on belongs to it."""

    def __init__(self, path: Path) -> None:
        """A file that has grown too long is moved to `NAME.1`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _LIMIT:
            path.replace(path.with_name(path.name + ".1"))
        self.path = path
        self._start = path.stat().st_size if path.exists() else 0

    def shows_parsed_options(self) -> bool:
        """Whether Triton has read its command line: it writes its log as its options say."""
        return _PARSED.search(self._bytes()) is not None

    def loaded(self) -> list[str]:
        """Models that are loaded, in order."""
        return [name.decode() for name in dict.fromkeys(_LOADED.findall(self._bytes()))]

    def failure(self) -> str | None:
        """Why loading failed; None where the log does not say."""
        text = self._bytes().decode("utf-8", "replace")
        if (reason := load_failure(text)) is not None:
            return reason
        errors = [line for line in text.splitlines() if _ERROR.match(line)]
        return single_line(errors[-1].partition("] ")[2] or errors[-1]) if errors else None

    def _bytes(self) -> bytes:
        with self.path.open("rb") as log:
            log.seek(self._start)
            return log.read()


def load_failure(text: str) -> str | None:
    """The reason in Triton's words: what the first model raised, otherwise the first model that failed."""
    found = list(_FAILED.finditer(text))
    raised = [match["raised"] for match in found if match["raised"]]
    if raised:
        return single_line(raised[0])
    return single_line(f"{found[0]['model']}: {found[0]['reason']}") if found else None
