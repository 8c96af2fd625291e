"""Lines of the log: one an event, with no way for a caller to write another."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from intaglio.telemetry.event_log import LONGEST_LINE, EventLog, LogFormat, line_of

HOSTILE = [
    'id\n{"time":"2026-01-01T00:00:00.000Z","level":"error","event":"forged"}',
    "id\r\nE1130 09:00:00.000000 1 server.cc:1] forged",
    "id\u2028next\u0085next\x1b[31mred\x00",
    "x" * 10_000_000,
    "\U0001f98a" * 100_000,
]


def written(format: LogFormat, **fields: Any) -> bytes:
    lines: list[bytes] = []
    EventLog(stage="diffuse", instance="diffuse_0_0", format=format, write=lines.append)(
        "info", "received", **fields
    )
    (line,) = lines
    return line


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize("value", HOSTILE, ids=["json", "triton", "controls", "long", "wide"])
def test_what_a_caller_gives_stays_in_its_line(format: LogFormat, value: str) -> None:
    line = written(format, request=value, message=value)
    assert len(line) <= LONGEST_LINE
    assert len(line.decode().splitlines()) == 1
    assert line.isascii()
    assert line.decode().rstrip("\n").isprintable()


def test_a_line_of_json_has_its_fields_in_order() -> None:
    fields = json.loads(written("json", request="12ab", loras="", error=None, seconds={"vae": 0.1}))
    assert list(fields) == ["time", "level", "stage", "instance", "event", "request", "seconds"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields["time"])
    assert fields["seconds"] == {"vae": 0.1}


def test_a_line_of_text_names_what_it_says() -> None:
    line = written("text", request="a b=c", steps=4, seconds={"vae": 0.1}).decode()
    assert line.partition("Z ")[2] == ('INFO diffuse_0_0 received request="a b=c" steps=4 seconds=vae:0.1\n')


def test_a_traceback_loses_its_beginning_and_keeps_its_reason() -> None:
    text = "Traceback\n" + "  a line\n" * 1000 + "ValueError: the reason"
    cut = json.loads(written("json", traceback=text))["traceback"]
    assert cut.startswith("…")
    assert cut.endswith("ValueError: the reason")
    *_, last = written("text", traceback=text).decode().splitlines()
    assert last == "  ValueError: the reason"


def test_events_below_the_level_are_left_out() -> None:
    lines: list[bytes] = []
    log = EventLog(least="warning", write=lines.append)
    for level in ("debug", "info", "warning", "error"):
        log(level, "event")
    assert [json.loads(line_of({"level": "x"}))["level"], len(lines)] == ["x", 2]
