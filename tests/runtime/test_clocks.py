"""The clock of the machine may jump, by a day as well: no deadline, pause or order hangs on it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "runtime/intaglio", ROOT / "client/intaglio_client")
WALL_CLOCK = {
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "ctime"),
    ("time", "localtime"),
    ("time", "gmtime"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}
ALLOWED = {
    "server_tls.py": "a certificate holds from one date to another",
    "certificate_metric.py": "a certificate holds from one date to another",
    "servers.py": "`batch` notes when a picture was drawn",
    "event_log.py": "lines of a log",
    "json_log.py": "lines of a log",
    "tracing.py": "the beginning of a span",
    "whole_files.py": "files that a killed writer left are older than an hour; their times are dates, too",
}
"""Files that may ask for the date, and what for."""


def asked_for_the_date(source: str) -> Iterator[int]:
    """Lines that read the wall clock, also where its function was imported by its name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if (owner, node.attr) in WALL_CLOCK:
                yield node.lineno
        if isinstance(node, ast.ImportFrom) and any(
            (node.module, one.name) in WALL_CLOCK for one in node.names
        ):
            yield node.lineno


def test_only_dates_are_read_from_the_wall_clock() -> None:
    found = {
        path.name: list(lines)
        for package in PACKAGES
        for path in package.rglob("*.py")
        if (lines := list(asked_for_the_date(path.read_text(encoding="utf-8"))))
    }
    assert found.keys() <= ALLOWED.keys(), f"use time.monotonic, or say here what the date is for: {found}"


@pytest.mark.parametrize(
    "source",
    [
        "time.time()",
        "clock = time.time_ns",
        "from time import time",
        "datetime.datetime.now()",
        "datetime.now(UTC)",
    ],
)
def test_every_way_to_read_it_is_found(source: str) -> None:
    assert list(asked_for_the_date(source)) == [1]
