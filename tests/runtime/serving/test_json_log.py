"""Triton's lines as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from intaglio.serving.json_log import json_lines
from intaglio.telemetry.event_log import LONGEST_LINE, line_of


def read(text: str) -> list[dict[str, Any]]:
    lines = json_lines(text.encode()).splitlines()
    assert all(len(line) < LONGEST_LINE for line in lines)
    return [json.loads(line) for line in lines]


def test_a_line_of_triton_keeps_its_time_level_and_source() -> None:
    month = datetime.now(UTC).strftime("%m%d")
    (line,) = read(
        f"E{month} 09:28:05.013126 29729 model_lifecycle.cc:624] \"failed to load 'x'\\nbecause\"\n"
    )
    year = datetime.now(UTC).year
    assert line == {
        "time": f"{year}-{month[:2]}-{month[2:]}T09:28:05.013Z",
        "level": "error",
        "stage": "triton",
        "event": "log",
        "source": "model_lifecycle.cc:624",
        "message": "failed to load 'x'\nbecause",
    }


def test_the_last_night_of_a_year_is_in_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    class January(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> January:
            return cls(2027, 1, 1, tzinfo=UTC)

    monkeypatch.setattr("intaglio.serving.json_log.datetime", January)
    (line,) = read("I1231 23:59:59.999999 1 server.cc:1] started\n")
    assert line["time"] == "2026-12-31T23:59:59.999Z"
    assert line["message"] == "started"


def test_lines_of_the_stages_pass_unchanged() -> None:
    ours = line_of(
        {"time": "2026-11-30T09:28:05.013Z", "level": "info", "stage": "diffuse", "event": "begun"}
    )
    assert json_lines(ours) == ours


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("+-------+", "info"),
        ("error: diffuse: the card is lost", "error"),
        ('{"time":"no object', "info"),
        ("x" * 100_000, "info"),
        ("\x1b[31mred\x00", "info"),
    ],
)
def test_everything_else_is_the_message_of_a_line(text: str, level: str) -> None:
    (line,) = read(text + "\n")
    assert (line["event"], line["level"]) == ("output", level)
    assert line["message"].rstrip("…") in text
