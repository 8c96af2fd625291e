"""The one rule for files that intaglio writes and reads again, maybe in a later version: `schema_version`.

A file that says nothing is of version 1, which was written before the key. A version is counted up when a
file of before can no longer be read as it was meant. docs/upgrades.md lists every format, and
`tests/upgrades` fails where one changes without its version.
"""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["SCHEMA_VERSION", "version_problem"]

SCHEMA_VERSION: Final = "schema_version"


def version_problem(found: Any, *, reads: int = 1) -> str | None:
    """Why a file with the content `found` is of no use to this version of intaglio, which reads the version
    `reads` of its format; None where the version is that one.

    `found` is the text of a JSON file or what it says. What is no JSON object has another problem.
    """
    if isinstance(found, bytes):
        try:
            found = json.loads(found)
        except ValueError:
            return None
    if not isinstance(found, dict):
        return None
    version = found.get(SCHEMA_VERSION, 1)
    if version == reads and not isinstance(version, bool):
        return None
    said = version if isinstance(version, int) else "unknown"
    return f"another version of intaglio wrote it: {SCHEMA_VERSION} is {said}, this version reads {reads}"
