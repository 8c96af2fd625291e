"""What is logged of a request's end, and which process imports OpenTelemetry."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from intaglio.errors import Cancelled, ConfigError, DeadlineExceeded, InvalidRequest, QueueFull
from intaglio.telemetry.event_log import EventLog
from intaglio.telemetry.journal import LONGEST_ID, Journal
from intaglio.telemetry.settings import TelemetrySettings, checked_traces


def told(error: BaseException | None, **fields: Any) -> dict[str, Any]:
    lines: list[bytes] = []
    Journal(EventLog(stage="diffuse", format="json", write=lines.append), "12ab").ended(error, **fields)
    (line,) = lines
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.parametrize(
    ("error", "event", "level", "status"),
    [
        (InvalidRequest("steps", "0", allowed="1 to 50"), "refused", "warning", "INVALID_ARG"),
        (QueueFull("Exceeds maximum queue size"), "refused", "warning", "UNAVAILABLE"),
        (Cancelled("cancelled by the caller"), "cancelled", "info", "CANCELLED"),
        (DeadlineExceeded("its deadline passed"), "late", "info", "CANCELLED"),
        (ZeroDivisionError("division by zero"), "failed", "error", "INTERNAL"),
    ],
)
def test_a_request_ends_in_one_of_five_ways(error: Exception, event: str, level: str, status: str) -> None:
    line = told(error)
    assert (line["event"], line["level"], line["status"]) == (event, level, status)
    assert (line["request"], line["error"], line["message"]) == ("12ab", type(error).__name__, str(error))


def test_one_that_is_answered_says_how_long_each_stage_took() -> None:
    line = told(None, seconds={"denoise": 1.25})
    assert (line["event"], line["level"], line["seconds"]) == ("finished", "info", {"denoise": 1.25})
    assert line["took"] >= 0


def test_an_id_is_cut() -> None:
    lines: list[bytes] = []
    journal = Journal(EventLog(format="json", write=lines.append), "x" * 10_000_000)
    journal.tell("received")
    assert len(json.loads(lines[0])["request"]) == LONGEST_ID


def test_settings_travel_as_variables() -> None:
    settings = TelemetrySettings(format="json", level="debug", traces="http://collector:4318/v1/traces")
    assert TelemetrySettings.of_environment(settings.environment) == settings
    assert TelemetrySettings.of_environment({}) == TelemetrySettings()


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"INTAGLIO_LOG_FORMAT": "xml"}, "INTAGLIO_LOG_FORMAT: 'xml'; allowed: text, json"),
        ({"INTAGLIO_LOG_LEVEL": "all"}, "INTAGLIO_LOG_LEVEL: 'all'; allowed: debug, info, warning, error"),
        ({"INTAGLIO_TRACES": "collector:4318"}, "INTAGLIO_TRACES: 'collector:4318' is no collector"),
    ],
)
def test_a_variable_that_means_nothing_is_refused(variables: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        TelemetrySettings.of_environment(variables)
    assert str(refused.value).startswith(says)


@pytest.mark.parametrize(
    "url", ["http://collector:4318", "ftp://a/b", "http:///v1/traces", "http://a/b,mode=triton"]
)
def test_only_a_whole_address_is_a_collector(url: str) -> None:
    with pytest.raises(ValueError, match="such as http://collector:4318/v1/traces"):
        checked_traces(url)


def test_an_address_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="a user name or a password") as refused:
        checked_traces("https://me:hidden@collector:4318/v1/traces")
    assert "hidden" not in str(refused.value)


def test_without_a_collector_nothing_of_opentelemetry_is_imported() -> None:
    code = """
import sys
from intaglio.telemetry.journal import Telemetry
from intaglio.telemetry.settings import TelemetrySettings
telemetry = Telemetry(TelemetrySettings(level="error"), stage="diffuse")
journal = telemetry.journal("12ab", None)
journal.waited(0.1)
journal.ended()
telemetry.close()
print([name for name in sys.modules if name.startswith(("opentelemetry", "google", "requests"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_collector_without_the_extra_is_named() -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None
from intaglio.telemetry.journal import Telemetry
from intaglio.telemetry.settings import TelemetrySettings
Telemetry(TelemetrySettings(traces="http://collector:4318/v1/traces"), stage="diffuse")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("is not installed; run: pip install 'intaglio[traces]'")
